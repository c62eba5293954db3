"""An encrypted store: nobody without the key reads it, changes it unseen, or mistakes it for a plain one."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from feedtune.errors import UserError
from feedtune.feedback import Answer, Event, FeedbackStore, item_of, now, response_of
from feedtune.feedback.storage.encryption import Cipher, new_key
from feedtune.feedback.storage.sealing import Sealer

PROMPT, GOOD, POOR = "a prompt in confidence", "a good answer\ud800", "a poor answer"
ITEM = item_of(
    PROMPT,
    [response_of(PROMPT, GOOD, run="secret run"), response_of(PROMPT, POOR)],
    messages=[{"role": "user", "content": "message in confidence"}],
    columns={"column": "value in confidence"},
)
EDIT = "what should have been said"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_KEY", new_key())
    monkeypatch.setenv("OTHER_KEY", new_key())


@pytest.fixture
def store(tmp_path: Path) -> FeedbackStore:
    made = FeedbackStore(tmp_path / "feedback.sqlite", "OUR_KEY")
    made.add([ITEM])
    about = (ITEM.responses[0].id,)
    edit = Answer(
        id="1",
        item=ITEM.id,
        kind="edit",
        responses=about,
        value=EDIT,
        rater="ann",
        time=now(),
        tags=("a tag",),
    )
    made.answer(edit)
    made.log([Event(id="1", response=about[0], kind="purchase of shoes", time=now())])
    return made


def test_with_the_key_everything_comes_back(store: FeedbackStore) -> None:
    again = FeedbackStore(store.path, "OUR_KEY")
    assert again.items() == [ITEM]
    assert [one.value for one in again.answers()] == [EDIT]
    assert [one.kind for one in again.events()] == ["purchase of shoes"]
    assert again.secret() == store.secret()


def test_no_text_is_in_the_file(store: FeedbackStore) -> None:
    store.add_account("rater", name="Annabel Leeman")
    secret = store.secret().hex()
    content = b"".join(file.read_bytes() for file in store.path.parent.iterdir())
    texts = (
        PROMPT,
        "a good answer",
        POOR,
        "secret run",
        "in confidence",
        EDIT,
        "a tag",
        "shoes",
        "Annabel",
        secret,
    )
    assert [text for text in texts if text.encode() in content] == []
    plain = FeedbackStore(store.path.parent / "plain.sqlite")
    plain.add([ITEM])
    assert PROMPT.encode() in plain.path.read_bytes()  # so that the search above can find something


def test_the_same_text_is_hidden_differently_each_time() -> None:
    cipher = Cipher("OUR_KEY")
    assert cipher.hide("yes") != cipher.hide("yes")
    assert cipher.show(cipher.hide("yes \U0001f980")) == "yes \U0001f980"
    assert Cipher("OTHER_KEY").show(cipher.hide("yes")) is None
    assert cipher.show("yes") is cipher.show("\ud800") is cipher.show("") is None


def test_without_its_key_or_with_another_one_it_is_refused(store: FeedbackStore) -> None:
    with pytest.raises(UserError) as caught:
        FeedbackStore(store.path).items()
    assert str(caught.value) == (
        f"feedback.key: {store.path} is encrypted; name the environment variable that holds its key, as in "
        "feedback.key=FEEDBACK_KEY"
    )
    for use in (FeedbackStore.items, FeedbackStore.answers, FeedbackStore.raters, FeedbackStore.secret):
        with pytest.raises(
            UserError, match=r"^feedback\.key: the key in OTHER_KEY is not the one that .* was"
        ):
            use(FeedbackStore(store.path, "OTHER_KEY"))
    with pytest.raises(UserError, match="is not the one"):
        FeedbackStore(store.path, "OTHER_KEY").add([ITEM])
    assert store.items() == [ITEM]


def test_a_plain_store_is_not_half_encrypted(tmp_path: Path) -> None:
    plain = FeedbackStore(tmp_path / "plain.sqlite")
    plain.add([ITEM])
    with pytest.raises(
        UserError, match=r"^feedback\.key: .*plain\.sqlite is not encrypted\. Leave feedback\.key"
    ):
        FeedbackStore(plain.path, "OUR_KEY").add([ITEM])


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "UNSET_KEY",
            None,
            r"the environment variable UNSET_KEY is not set; it has to hold the key that the store was made "
            r"with\. For a new store: export UNSET_KEY=",
        ),
        ("EMPTY_KEY", "  ", r"the environment variable EMPTY_KEY is not set"),
        (
            "SHORT_KEY",
            "abc",
            r"the environment variable SHORT_KEY holds no key \(32 bytes in URL-safe base64\)",
        ),
        ("LONG_KEY", "é" * 44, r"the environment variable LONG_KEY holds no key"),
        ("not a name", None, "expected the name of an environment variable such as FEEDBACK_KEY"),
        ("", None, "expected the name of an environment variable such as FEEDBACK_KEY"),
    ],
)
def test_what_is_no_key_is_named(
    variable: str, value: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=f"^feedback.key: {message}"):
        Cipher(variable)


def test_a_key_in_place_of_its_variable_is_never_repeated() -> None:
    key = new_key()
    with pytest.raises(UserError) as caught:
        Cipher(key)
    assert key not in str(caught.value)
    bare = key.replace("-", "a").replace("=", "a")  # which could be the name of a variable
    with pytest.raises(UserError) as caught:
        Cipher(bare)
    assert bare not in str(caught.value)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    with pytest.raises(UserError, match=r"feedback\.key needs .*pip install 'feedtune\[feedback\]'"):
        Cipher("OUR_KEY")
    FeedbackStore(tmp_path / "plain.sqlite").add([ITEM])  # which needs none


def test_rows_of_an_encrypted_store_cannot_be_exchanged_or_made(store: FeedbackStore) -> None:
    """Each is encrypted by the right key, but not as this row; or by another key."""
    other = FeedbackStore(store.path.parent / "other.sqlite", "OTHER_KEY")
    other.add([ITEM])
    with closing(sqlite3.connect(other.path)) as db:
        [forged] = db.execute("SELECT body FROM items").fetchone()
    for change, values in (
        ("UPDATE answers SET rater = 'bob'", ()),
        ("UPDATE answers SET body = (SELECT body FROM items)", ()),
        ("UPDATE responses SET body = (SELECT max(body) FROM responses)", ()),
        ("UPDATE items SET body = ?", (forged,)),
    ):
        before = store.path.read_bytes()
        with closing(sqlite3.connect(store.path)) as db, db:
            db.execute(change, values)
        with pytest.raises(UserError, match="is not as it was written"):
            store.items(), store.answers()
        store.path.write_bytes(before)
    assert store.items() == [ITEM]


def test_a_value_is_of_its_table_and_its_row_alone() -> None:
    for cipher in (Cipher(None), Cipher("OUR_KEY")):
        sealer = Sealer(cipher)
        body = sealer.close("items", ["1", 2.5], {"text": "yes"})
        assert sealer.open("items", ["1", 2.5], body) == {"text": "yes"}
        for table, columns in (("answers", ["1", 2.5]), ("items", ["1", 2.6]), ("items", ["1"])):
            assert sealer.open(table, columns, body) is None


def test_a_fresh_key_opens_what_it_has_closed() -> None:
    keys = {new_key() for _ in range(5)}
    assert len(keys) == 5
    assert all(Fernet(key) for key in keys)
