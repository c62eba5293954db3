"""`feedtune feedback`: its subcommands that keep, hand on and delete; what is typed wrong is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from feedtune.cli import main
from feedtune.commands.feedback import SUBCOMMANDS
from feedtune.feedback import Answer, FeedbackStore, item_of, now, response_of

ITEM = item_of("1+1?", [response_of("1+1?", "2", run="one"), response_of("1+1?", "3", run="two")])
A, B = (one.id for one in ITEM.responses)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeedbackStore:
    """In a run folder, of which the parent is the working directory."""
    monkeypatch.chdir(tmp_path)
    made = FeedbackStore("run/feedback.sqlite")
    made.add([ITEM])
    made.answer_all(
        Answer(
            id=f"of {rater}",
            item=ITEM.id,
            kind="comparison",
            responses=(A, B),
            value="a",
            rater=rater,
            time=now(),
        )
        for rater in ("ann", "bob")
    )
    return made


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["feedback", *words]) == code
    out, err = capsys.readouterr()
    return err if code else out


def test_help_lists_every_subcommand_and_each_has_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "--help")
    assert said(capsys) == text
    for name, (_, line) in SUBCOMMANDS.items():
        assert f"\n  {name} " in text
        assert line in text
    assert "the store itself" in said(capsys, "export", "--help")


def test_an_unknown_subcommand_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    message = said(capsys, "exprt", "run", code=2)
    assert message.startswith("feedtune: feedback: no subcommand 'exprt'. Did you mean 'export'? It has: ")


def test_raters_are_listed(store: FeedbackStore, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["run"], ["run/feedback.sqlite"], ["feedback.path=run/feedback.sqlite"]):
        rows = re.findall(r"│ (\w+) +│ (\w+) +│ (\d+) +│", said(capsys, "raters", *words))
        assert rows == [("ann", "person", "1"), ("bob", "person", "1")]


def test_export_and_import_go_together(store: FeedbackStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "export", "run", "out") == "out/comparisons.jsonl: 2 rows\n"
    assert said(capsys, "import", "again.sqlite", "out") == (
        "new: 1 items, 2 of 2 answers, 0 of 0 events\nstore: again.sqlite\n"
    )
    assert FeedbackStore("again.sqlite").answers() == store.answers()
    assert said(capsys, "export", "run", "one.jsonl", "--rater", "bob") == "one.jsonl: 1 row\n"
    assert '"rater": "bob"' in Path("one.jsonl").read_text()
    assert said(capsys, "export", "run", "out2", "--only", "edits", "--only", "events").startswith(
        "nothing to"
    )


def test_a_store_is_named_once(store: FeedbackStore, capsys: pytest.CaptureFixture[str]) -> None:
    """With feedback.path all ordinary arguments are about something else; none is passed over."""
    said(capsys, "export", "feedback.path=run/feedback.sqlite", "a", "--rater", "ann")
    said(capsys, "export", "feedback.path=run/feedback.sqlite", "b", "--rater", "bob")
    said(capsys, "import", "feedback.path=new/store.sqlite", "a/comparisons.jsonl", "b")
    assert FeedbackStore("new/store.sqlite").answers() == store.answers()
    message = said(capsys, "raters", "run", "feedback.path=run/feedback.sqlite", code=2)
    assert message.startswith("feedtune: unrecognized arguments: run; see feedtune feedback raters --help")


def test_what_is_typed_wrong_for_export_is_named(
    store: FeedbackStore, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, message in (
        (
            ["run", "out", "--rater", "anne"],
            "run/feedback.sqlite has no answers of 'anne'. Did you mean 'ann'?",
        ),
        (["run", "out", "--only", "edit"], "argument --only: invalid choice: 'edit'"),
        (["run", "x.jsonl", "--only", "edits", "--only", "ratings"], "--only: a file holds one of them"),
        (["rum", "out"], "DIR: there is no folder rum. Did you mean 'run'?"),
        (["rum.sqlite", "out"], "feedback.path: there is no feedback store rum.sqlite"),
        (["run"], "the following arguments are required: OUT; see feedtune feedback export --help"),
        (["run", "all.txt"], "OUT: expected a folder or a name that ends in .jsonl, got all.txt"),
        (["run", "out", "feedback.key=UNSET_KEY"], "the environment variable UNSET_KEY is not set"),
        (
            ["run", "out", "feedback.kye=X"],
            "feedback.kye: there is no such key in 'feedback'. Did you mean 'key'?",
        ),
        (["run", "out", "feedback.port=many"], "feedback.port: expected a whole number, got 'many'"),
        (["run", "out", "--onyl", "edits"], "--onyl: there is no such flag (did you mean '--only'?)"),
    ):
        assert message in said(capsys, "export", *words, code=2)
    assert sorted(path.name for path in Path().iterdir()) == ["run"]


def test_one_file_holds_one_form_of_prompts(store: FeedbackStore, capsys: pytest.CaptureFixture[str]) -> None:
    chat = item_of("Hi", [response_of("Hi", "Ho")], messages=[{"role": "user", "content": "Hi"}])
    store.add([chat, item_of("Hi", [response_of("Hi", "Ho")])])
    message = said(capsys, "export", "run", "open.jsonl", "--only", "unanswered", code=2)
    assert message == (
        "feedtune: OUT: there are plain prompts and conversations, so name a folder: got open.jsonl\n"
    )
    written = said(capsys, "export", "run", "out", "--only", "unanswered")
    assert written == "out/unanswered.jsonl: 1 row\nout/chat_unanswered.jsonl: 1 row\n"


def test_forgetting_names_who_is_not_known(store: FeedbackStore, capsys: pytest.CaptureFixture[str]) -> None:
    message = said(capsys, "forget", "run", "anne", code=2)
    assert message == "feedtune: rater: run/feedback.sqlite knows no 'anne'. Did you mean 'ann'?\n"
    assert said(capsys, "forget", "run", "ann").startswith("ann: 1 answers and the login deleted; copies of")
    assert [one.rater for one in store.raters()] == ["bob"]
    pseudonym, _ = store.add_account("rater")
    assert "0 answers" in said(capsys, "forget", "feedback.path=run/feedback.sqlite", pseudonym)
    assert store.accounts() == []


def test_logins_are_made_listed_and_ended(store: FeedbackStore, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("account", "run", "--new", "rater", "--name", "Ann")
    line, token, link = said(capsys, *words).splitlines()
    account = store.account(token)
    assert account is not None
    assert line.startswith(f"{account.pseudonym} logs in with the token below. It is shown this once")
    assert link.endswith(f": http://127.0.0.1:8765/login#{token}")
    listed = said(capsys, "account", "run")
    assert account.pseudonym in listed
    assert token not in listed
    assert "Ann" in listed
    assert "there is no login" in said(capsys, "account", "run", "--revoke", "nobody", code=2)
    assert "the answers stay" in said(capsys, "account", "run", "--revoke", account.pseudonym)
    assert store.account(token) is None
    assert "one at a time" in said(capsys, "account", "run", "--new", "admin", "--revoke", "x", code=2)
    assert "role: expected rater, admin, logger, got 'boss'" in said(
        capsys, "account", "run", "--new", "boss", code=2
    )
    assert "there is no feedback store" in said(capsys, "account", "other.sqlite", code=2)
    said(capsys, "account", "other.sqlite", "--new", "admin")
    assert Path("other.sqlite").is_file()


@pytest.mark.parametrize(
    "words", [["import", "rum", "out"], ["log", "rum", "-"], ["account", "rum", "--new", "rater"]]
)
def test_a_mistyped_folder_gets_no_store(
    words: list[str], store: FeedbackStore, capsys: pytest.CaptureFixture[str]
) -> None:
    message = said(capsys, *words, code=2)
    assert message == "feedtune: DIR: there is no folder rum. Did you mean 'run'?\n"
    assert not Path("rum").exists()


def test_an_encrypted_store_from_the_command_line(
    store: FeedbackStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/feedback.md shows it: a key, an export, an import into a store with the key."""
    monkeypatch.setenv("MINE", said(capsys, "key").strip())
    said(capsys, "export", "run", "out")
    said(capsys, "import", "secret.sqlite", "out", "feedback.key=MINE")
    assert len(FeedbackStore("secret.sqlite", "MINE").answers()) == 2
    assert "is encrypted; name the environment variable" in said(capsys, "raters", "secret.sqlite", code=2)
    assert "ann" in said(capsys, "raters", "secret.sqlite", "feedback.key=MINE")


def test_a_folder_with_an_equals_sign_is_a_folder(
    store: FeedbackStore, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("lr=0.1").mkdir()
    Path("run/feedback.sqlite").rename("lr=0.1/feedback.sqlite")
    assert "ann" in said(capsys, "raters", "lr=0.1")


def test_a_key_that_was_typed_in_place_of_its_variable_is_not_repeated(
    store: FeedbackStore, capsys: pytest.CaptureFixture[str]
) -> None:
    key = said(capsys, "key").strip()
    message = said(capsys, "raters", "run", f"feedback.key={key}", code=2)
    assert message.startswith("feedtune: 'feedback.key=***': it looks like a key or password; keep it in an")
    assert key[:40] not in message


def test_neither_folder_nor_path_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    message = said(capsys, "raters", code=2)
    assert message.startswith("feedtune: the following arguments are required: DIR; see feedtune feedback")
    message = said(capsys, "estimate", code=2)
    assert message == "feedtune: feedback.path: not given; name the store, or a run folder that has one\n"
