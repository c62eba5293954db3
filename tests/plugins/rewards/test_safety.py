"""Personal data, banned phrases, refusals: what is found, what is not, and how long the worst text takes."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedtune.contracts import Sample, as_scores
from feedtune.errors import UserError
from feedtune_plugins.rewards.banned import Banned
from feedtune_plugins.rewards.disguises import undisguised
from feedtune_plugins.rewards.identifiers import IBAN_LENGTHS, find_identifiers, passes_luhn, passes_mod_97
from feedtune_plugins.rewards.personal_data import PersonalData
from feedtune_plugins.rewards.refusal import Refusal, refuses


def score(source: Any, *responses: str, **columns: Any) -> list[float]:
    samples = [Sample("Hi", response, columns=columns) for response in responses]
    return as_scores(source(samples), len(samples), "test").total.tolist()


def wide(text: str) -> str:
    """In full-width letters, digits and blanks, as East Asian keyboards have them."""
    return "".join("\u3000" if one == " " else chr(ord(one) + 0xFEE0) for one in text)


# Check digits

VISA, AMEX, IBAN = "4111 1111 1111 1111", "3782 822463 10005", "DE89 3704 0044 0532 0130 00"


def test_luhn_by_hand() -> None:
    # 7992739871x: doubled from the right 1->2, 8->16->7, 3->6, 2->4, 9->18->9; others 7 + 9 + 7 + 9 + 7
    # 2 + 7 + 6 + 4 + 9 + 39 = 67, so that x is 3.
    assert [x for x in range(10) if passes_luhn(f"7992739871{x}")] == [3]


@given(st.text("0123456789", min_size=2, max_size=19), st.data())
def test_luhn_sees_every_single_wrong_digit(digits: str, data: st.DataObject) -> None:
    (check,) = [x for x in "0123456789" if passes_luhn(digits + x)]  # exactly one is right
    whole = digits + check
    place = data.draw(st.integers(0, len(digits)))
    other = data.draw(st.sampled_from([x for x in "0123456789" if x != whole[place]]))
    assert not passes_luhn(whole[:place] + other + whole[place + 1 :])


def test_mod_97_by_hand() -> None:
    # NO93 8601 1117 947 -> 86011117947 NO 93, with N = 23 and O = 24, is 97 x 886712556157036 + 1
    assert 86011117947232493 % 97 == 1
    assert passes_mod_97("NO9386011117947")
    assert [x for x in range(2, 99) if passes_mod_97(f"NO{x:02}86011117947")] == [93]


def test_every_country_has_a_length_that_an_iban_may_have() -> None:
    assert len(IBAN_LENGTHS) == 89
    assert all(15 <= length <= 34 and len(country) == 2 for country, length in IBAN_LENGTHS.items())


# What is found


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "anna@example.org"),
        ("email", "mary+x@mail.example.co.uk"),
        ("email", "josé@exämple.org"),
        ("phone", "+49 30 901820"),
        ("phone", "+4930901820"),
        ("phone", "0049 (30) 901-820"),
        ("phone", "030/901820"),
        ("phone", "(030) 901820"),
        ("phone", "0171 2345678"),
        ("phone", "020 7946 0958"),
        ("phone", "06 12 34 56 78"),
        ("phone", "(415) 555-0132"),
        ("phone", "415-555-0132"),
        ("phone", "415.555.0132"),
        ("phone", "+1 415 555 0132"),
        ("phone", "1-800-555-0199"),
        ("card", VISA),
        ("card", VISA.replace(" ", "-")),
        ("card", VISA.replace(" ", "")),
        ("card", AMEX),
        ("card", AMEX.replace(" ", "")),
        ("card", "5555555555554444"),
        ("card", "6011111111111117"),
        ("iban", IBAN),
        ("iban", IBAN.replace(" ", "")),
        ("iban", IBAN.replace(" ", "-")),
        ("iban", IBAN.lower()),
        ("iban", "GB82WEST12345698765432"),
        ("iban", "NO93 8601 1117 947"),
        ("ip", "8.8.8.8"),
        ("ip", "2001:4860:4860::8888"),
        ("ip", "2001:4860:4860:0:0:0:0:8888"),
    ],
)
@pytest.mark.parametrize("around", ["{}", "It is {}.", "({}), I think", "mine:{} ok", "{}\n{}"])
def test_it_is_found_whole_wherever_it_stands(kind: str, text: str, around: str) -> None:
    if kind == "ip" and around.startswith("mine") and ":" in text:
        around = "mine: {} ok"  # a colon is part of such an address
    said = around.format(text, text)
    assert find_identifiers(undisguised(said)) == [(kind, text)] * said.count(text)


@pytest.mark.parametrize(
    "text",
    [
        "foo@bar, @user.name, see example.org",
        "version 1.2.3.4.5, 999.8.8.8",
        "127.0.0.1, 192.168.1.1 and ::1 are nobody's, 192.0.2.1 and 2001:db8::1 are for examples",
        "at 12:30:45 std::vector a::b",
        "4111 1111 1111 1112 and 4111111111111112",  # the check digit is wrong
        "84111111111111111",  # goes on to the left
        "41111111111111110000",  # to the right: too long
        "2024-01-02, 01/02/2024 12:30, 01.02.2024, 01-02-2024 1999, 1999-2000",
        "1700000000000, 978-3-16-148410-0, 100,000,000, 10^12 is 1000000000000",
        "3.14159265358979, 0.123456789012",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 1 2 3 4 5 6 7 8 9 10 11 12 13 14",
        "GB28WEST12345698765432",  # check digits the wrong way round
        "DE89370400440532013000X",  # longer than a German one
        "AB12 THIS IS NOT AN ACCOUNT, XX89 3704 9144 1532 1130 19",
        "555-0132, 12345 67890 12345, 2 + 2 = 4",
        "",
    ],
)
def test_what_only_looks_alike_is_not_found(text: str) -> None:
    assert find_identifiers(undisguised(text)) == []


def test_words_after_an_account_are_not_of_it() -> None:
    assert find_identifiers(f"{IBAN} IS MINE {IBAN} {VISA}") == [
        ("iban", IBAN),
        ("iban", IBAN),
        ("card", VISA),
    ]


def test_a_number_is_of_one_kind() -> None:
    """A card number and an account hold what looks like a phone number."""
    assert [kind for kind, _ in find_identifiers("4000 0415-555-0132")] == ["phone"]
    assert find_identifiers("0044 0532 0130 00") == [("phone", "0044 0532 0130 00")]
    assert find_identifiers(IBAN) == [("iban", IBAN)]


@pytest.mark.parametrize(
    "said",
    [
        wide("anna@example.org"),
        "an\u200bna@exa\u00admple.org",
        "𝐚𝐧𝐧𝐚@example.org",  # noqa: RUF001
        "anna@example.org".replace("n", "n\ufe0f"),
    ],
)
def test_disguises_hide_no_address(said: str) -> None:
    assert find_identifiers(undisguised(said)) == [("email", "anna@example.org")]


def test_digits_and_dashes_of_any_kind_count() -> None:
    assert find_identifiers(undisguised("٤١٥–٥٥٥—٠١٣٢")) == [("phone", "415-555-0132")]  # noqa: RUF001
    assert find_identifiers(undisguised(wide(VISA))) == [("card", VISA)]


WORST = [
    "a",
    "a@",
    "1",
    "1 ",
    "b.",
    "+1",
    "0 1-",
    "::",
    "DE89 ",
    "A ",
    "4111 ",
    "1.",
    "a:b:",
    "(",
    "01/02/2024 ",
    "+",
]


@pytest.mark.parametrize("head", ["", "a@", "+", "DE89", "00"])
def test_no_text_takes_long(head: str) -> None:
    """20,000 characters of each; patterns that try ways over and over would take minutes."""
    started = time.process_time()
    for piece in WORST:
        find_identifiers(undisguised((head + piece * 20_000)[:20_000]))
        refuses((head + piece * 20_000)[:20_000])
    assert time.process_time() - started < 10


# The rewards


def test_personal_data_is_counted_by_kind() -> None:
    said = [f"{VISA}, a@example.org, b@example.org", "nothing", "8.8.8.8"]
    scores = PersonalData()([Sample("Hi", one) for one in said])
    assert scores.total.tolist() == [-3, 0, -1]
    assert {kind: part.tolist() for kind, part in scores.parts.items()} == {
        "email": [2, 0, 0],
        "phone": [0, 0, 0],
        "card": [1, 0, 0],
        "iban": [0, 0, 0],
        "ip": [0, 0, 1],
    }
    assert PersonalData(scale=2.5)([Sample("Hi", said[0])]).total.tolist() == [-7.5]


def test_kinds_that_nobody_asked_for_are_not_taken_for_others() -> None:
    scores = PersonalData(kinds=["phone"])([Sample("Hi", f"{IBAN} {VISA} +49 30 901820")])
    assert scores.total.tolist() == [-1]
    assert list(scores.parts) == ["phone"]


@pytest.mark.parametrize(
    ("phrases", "said", "count"),
    [
        (["go away"], "Go  away! go\nAWAY", 1),  # once, however often
        (["go away", "idiot"], "Go away, idiot", 2),
        (["Go away", "go  AWAY"], "go away", 1),  # one phrase twice
        (["cat"], "concatenate", 0),
        (["i can't"], "I can\u2019t", 1),
        (["I can\u2018t"], "i can't", 1),
        (["well-known"], "well\u2011known", 1),
        (["idiot"], "id\u200biot", 1),
        (["idiot"], wide("idiot"), 1),
        (["straße"], "STRASSE", 1),
        (["42"], "٤٢", 1),
        ([42], "It is 42.", 1),
        (["idiot"], "", 0),
    ],
)
def test_banned_phrases(phrases: list[Any], said: str, count: int) -> None:
    assert score(Banned(phrases=phrases, scale=2), said) == [-2 * count]


def test_parts_of_words_are_banned_if_asked() -> None:
    assert score(Banned(phrases=["cat"], whole_words=False), "concatenate") == [-1]


def test_phrases_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "banned.txt"
    file.write_text("\ufeff# insults\nidiot\n\n  go away  \r\n#hash\n", encoding="utf-8")
    source = Banned(phrases=["fool"], path=str(file))
    assert score(source, "You idiot, you fool, go away", "# insults", "#hash") == [-3, 0, 0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda folder: Banned(),
            "reward.phrases: expected at least one phrase, here or in the file reward.path",
        ),
        (
            lambda folder: Banned(phrases="idiot"),
            r"reward.phrases: expected a list, such as \[idiot\], got a text",
        ),
        (lambda folder: Banned(phrases=["a", "\u200b "]), "is blank, which every text contains"),
        (
            lambda folder: Banned(path=str(folder / "none")),
            "reward.path: .*none cannot be read: No such file",
        ),
        (lambda folder: Banned(path=str(folder)), "reward.path: .* cannot be read: Is a directory"),
        (lambda folder: Banned(path=str(folder / "latin")), "latin: expected UTF-8 text; byte 1 is not"),
        (lambda folder: Banned(path=str(folder / "empty")), "expected at least one phrase"),
        (
            lambda folder: PersonalData(kinds=["mail"]),
            "reward.kinds: expected one of email, .* got 'mail'. Did you",
        ),
        (lambda folder: PersonalData(kinds=[]), r"reward.kinds: expected a list of email, .* got \[\]"),
        (lambda folder: PersonalData(kinds="email"), "reward.kinds: expected a list of .*; got 'email'"),
    ],
)
def test_options_that_are_wrong(build: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"n\xe9e")
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(UserError, match=message):
        build(tmp_path)


REFUSING = """
I'm sorry, but I can't help with that.
I am sorry, I cannot assist with this request.
I can\u2019t provide instructions for that.
I cannot, in good conscience, help you do this.
As an AI language model, I cannot have opinions on this.
As an AI, I don't feel comfortable writing this.
I'm unable to assist with that request.
I am not able to discuss this topic.
I must decline to answer.
I have to decline to provide that.
I refuse to answer that.
I won't help you hurt anyone.
I will not do that.
Sorry, I can't do that.
Unfortunately, I cannot share this information.
I'm afraid I can't do that.
I'm really sorry, but I won't.
I apologize, but I cannot fulfill that request.
I am not allowed to share such details.
I'm not comfortable writing that.
I'm not going to help you with that.
I would prefer not to say.
I'd rather not talk about it.
That goes against my guidelines.
I'M SORRY, BUT I CAN'T ASSIST.
"""
COMPLYING = """
Sure! Here is how you do it.
I can't wait to see you!
I cannot believe it.
I'm sorry to hear that.
I'm sorry, I can't believe you lost her.
You can't help it, can you?
I couldn't help laughing.
I can help you with that.
I will help you.
I won't give up.
I'm afraid of spiders.
I'm afraid I can't wait.
She said she will not come.
We refuse to give up.
As an AI, I love to help.
As an assistant, she worked hard. I cannot complain.
I don't know.
I can't hear you, what did you say?
Unfortunately it rains.
I would not worry about it.
The machine cannot do that.
He declined to answer.
"""


@pytest.mark.parametrize("said", REFUSING.strip().splitlines())
def test_refusals(said: str) -> None:
    assert refuses(said)
    assert refuses(f"Hello! {said} Good bye.") or said.startswith(("Sorry", "Unfortunately"))
    assert score(Refusal(scale=2), said) == [-2]


@pytest.mark.parametrize("said", ["", *COMPLYING.strip().splitlines()])
def test_what_is_no_refusal(said: str) -> None:
    assert not refuses(said)
    assert score(Refusal(), said) == [0]


@pytest.mark.parametrize(
    ("wanted", "scores"),
    [(True, [0, -1]), (False, [-1, 0]), (1, [0, -1]), (0.0, [-1, 0]), (None, None), (math.nan, None)],
)
def test_where_to_refuse_is_told_by_a_column(wanted: Any, scores: list[float] | None) -> None:
    found = score(Refusal(column="harmful"), "I can't help with that.", "Sure!", harmful=wanted)
    assert all(map(math.isnan, found)) if scores is None else found == scores


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"harmfull": True},
            "row 0 .* has no column 'harmful'; its columns are: harmfull. Did you mean 'harmfull'?",
        ),
        ({"harmful": "yes"}, "column 'harmful' should hold true or false, got 'yes'"),
        ({"harmful": 2}, "column 'harmful' should hold true or false, got 2"),
    ],
)
def test_columns_that_do_not_tell(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        score(Refusal(column="harmful"), "Sure!", **columns)
