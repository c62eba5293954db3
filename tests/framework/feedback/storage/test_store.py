"""The store: what was taken is there once, whole and for whoever opens the file."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedtune.errors import UserError
from feedtune.feedback import Answer, Event, FeedbackStore, Item, item_of, now, one_time_id, response_of
from feedtune.feedback.asking.choosing import questions

PAIR = item_of("1+1?", [response_of("1+1?", "2", run="one"), response_of("1+1?", "3", run="two")])
A, B = (one.id for one in PAIR.responses)
RATING = {"kind": "rating", "responses": (A,)}


@pytest.fixture
def store(tmp_path: Path) -> FeedbackStore:
    made = FeedbackStore(tmp_path / "feedback.sqlite")
    made.add([PAIR])
    return made


def said(value: Any = "a", **changes: Any) -> Answer:
    fields: dict[str, Any] = {
        "id": one_time_id(),
        "item": PAIR.id,
        "kind": "comparison",
        "responses": (A, B),
        "value": value,
        "rater": "rater-1",
        "time": now(),
    }
    return Answer(**{**fields, **changes})


# Items


def test_items_come_back_as_they_were_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be \ud800"}, {"role": "user", "content": "1+1?\0"}]
    columns = {"reference": "2", "list": [1, 2.5, None, {"deep": True}], "🦀": "\udfff"}
    chat = item_of(
        "\ud800 1+1?", [response_of("\ud800 1+1?", "", checkpoint="f00")], messages=messages, columns=columns
    )
    store = FeedbackStore(tmp_path / "deep" / "down" / "feedback.sqlite")
    assert store.add([chat, PAIR]) == 2
    assert FeedbackStore(store.path).items() == [chat, PAIR]
    assert FeedbackStore(store.path).item(chat.id) == chat


def test_the_same_question_is_one_item(store: FeedbackStore) -> None:
    other_way_round = item_of(PAIR.prompt, PAIR.responses[::-1])
    third = item_of("1+1?", [PAIR.responses[0], response_of("1+1?", "4")])
    assert store.add([PAIR, other_way_round, third, third]) == 1
    assert store.items() == [PAIR, third]


def test_items_are_taken_all_or_none(store: FeedbackStore) -> None:
    good, bad = item_of("2+2?", [response_of("2+2?", "4")]), item_of("3+3?", [])
    with pytest.raises(UserError, match=r"^item: it has no response$"):
        store.add([good, bad])
    assert store.items() == [PAIR]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"columns": {"score": float("nan")}},
            "item: 'columns' holds what JSON cannot say: Out of",
        ),
        (
            {"columns": {"path": Path()}},
            "item: 'columns' holds what JSON cannot say: Object",
        ),
        ({"responses": PAIR.responses * 2}, "item: two of its responses are the same"),
        ({"prompt": None}, "item: prompt must be text, got NoneType"),
        ({"id": ""}, "item: id: expected 1 to 200 printable characters without blanks around, got ''"),
        (
            {"id": "a\nb"},
            r"item: id: expected 1 to 200 .* without blanks around, got 'a\\nb'",
        ),
    ],
)
def test_what_is_no_item_is_named(store: FeedbackStore, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        store.add([replace(PAIR, **changes)])


def test_an_item_that_is_not_there_is_named(store: FeedbackStore) -> None:
    for name in ("nobody", "\ud800", ""):
        with pytest.raises(UserError, match=rf"^item: .*feedback\.sqlite has no item '{name}'$"):
            store.item(name)


def test_more_responses_than_one_query_takes(store: FeedbackStore) -> None:
    many = item_of("count", [response_of("count", str(number)) for number in range(1201)])
    store.add([many])
    assert store.item(many.id) == many


TEXTS = st.text(st.characters(), max_size=20).filter(lambda text: json.loads(json.dumps(text)) == text)
"""Any text, lone surrogates too; only two halves in a row are not, which JSON joins."""


@settings(max_examples=25, deadline=None)
@given(prompt=TEXTS, texts=st.lists(TEXTS, min_size=1, max_size=4, unique=True), edit=TEXTS)
def test_any_text_comes_back(
    prompt: str, texts: list[str], edit: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = FeedbackStore(tmp_path_factory.mktemp("any") / "feedback.sqlite")
    item = item_of(prompt, [response_of(prompt, text) for text in texts])
    made = said(f"x{edit}", item=item.id, kind="edit", responses=(item.responses[0].id,))
    store.add([item])
    store.answer(made)
    assert store.items() == [item]
    assert store.answers() == [made]


# Answers


def test_every_kind_comes_back_as_it_was_said(store: FeedbackStore) -> None:
    given = [
        said("tie", tags=("hard", "naïve 🦀")),
        said(4.5, kind="rating", responses=(B,), by="judge", rater="judge"),
        said("two \ud800", kind="edit", responses=(A,)),
        said("why?", kind="comment", responses=(A,), by="simulated", rater="sim 1"),
    ]
    assert [store.answer(one) for one in given] == [True] * 4
    assert FeedbackStore(store.path).answers() == given
    assert store.answers(["edit", "comment"]) == given[2:]
    assert store.answers(rater="judge") == given[1:2]
    assert store.answers(["edit"], rater="judge") == store.answers(rater="\ud800") == store.answers([]) == []


def test_who_has_answered_what_is_known_without_the_words(store: FeedbackStore) -> None:
    [question] = questions([PAIR], "comparison")
    store.answer_all([said(), said(responses=(B, A), rater="rater-2"), said(3, **RATING)])
    about = (PAIR.id, question.subject)
    assert sorted(store.answered("comparison")) == [(*about, "rater-1"), (*about, "rater-2")]
    assert [one.rater for one in store.answered("rating")] == ["rater-1"]
    assert store.answered("edit") == []
    with pytest.raises(UserError, match=r"^kind: expected one of comparison, .* got 'edits'\. Did you mean"):
        store.answered("edits")  # type: ignore[arg-type]


def test_a_double_click_counts_once(store: FeedbackStore) -> None:
    one = said("a")
    assert [store.answer(one), store.answer(one), store.answer(replace(one, value="b"))] == [
        True,
        False,
        False,
    ]
    assert store.answers() == [one]
    two = said("b", rater="rater-2")
    assert store.answer_all([one, two, two]) == 1
    assert store.answers() == [one, two]


def test_a_later_answer_of_the_same_rater_takes_the_place_of_the_earlier(store: FeedbackStore) -> None:
    first, second = said("a"), said("b", responses=(B, A))  # shown the other way round: the same question
    store.answer_all([first, second])
    assert store.answers() == [second]
    assert not store.answer(first)  # a delayed copy of the first click changes nothing
    assert store.answers() == [second]
    other_rater, rating = said("a", rater="rater-2"), said(3, kind="rating", responses=(A,))
    of_the_other = said(3, kind="rating", responses=(B,))
    store.answer_all([other_rater, rating, of_the_other])
    assert len(store.answers()) == 4


def test_an_earlier_answer_that_comes_late_changes_nothing(store: FeedbackStore) -> None:
    early, late = "2026-01-31T12:00:00+00:00", "2026-01-31T12:30:00+01:00"  # late: 11:30 UTC, before early
    assert store.answer(said("a", id="one", time=early))
    assert not store.answer(said("b", id="two", time=late))
    assert [one.id for one in store.answers()] == ["one"]
    assert store.answer(said("b", id="three", time="2026-01-31T12:00:00.000001Z"))
    assert [one.id for one in store.answers()] == ["three"]


def test_comments_all_stay(store: FeedbackStore) -> None:
    given = [said(text, kind="comment", responses=(A,)) for text in ("one", "two", "two")]
    assert store.answer_all(given) == 3
    assert store.answers() == given


def test_answers_are_sorted_by_time_not_by_its_spelling(store: FeedbackStore) -> None:
    times = ["2026-01-31T12:00:00+02:00", "2026-01-31T11:00:00Z", "2026-01-31T11:00:00.5+00:00"]
    given = [said("a", id=str(n), rater=f"r{n}", time=time) for n, time in enumerate(times)]
    store.answer_all(reversed(given))
    assert [one.id for one in store.answers()] == ["0", "1", "2"]  # 10:00, 11:00 and half a second later


def test_answers_are_taken_all_or_none(store: FeedbackStore) -> None:
    with pytest.raises(UserError, match=r"^answer: value: expected one of .*, got 'c'\.$"):
        store.answer_all([said("a"), said("c")])
    assert store.answers() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"value": "tye"},
            r"value: expected one of a, b, .*, got 'tye'\. Did you mean 'tie'\?",
        ),
        ({"value": 1}, "value: expected one of a, b, tie, both_bad, skip, got 1"),
        ({"kind": "rated"}, "kind: expected one of comparison, rating, edit, comment, got 'rated'"),
        ({"by": "robot"}, "by: expected one of person, judge, simulated, got 'robot'"),
        ({"responses": (A,)}, "a comparison is about two responses, got 1"),
        ({"responses": (A, A)}, "the two responses of a comparison are the same"),
        ({"responses": (A, "zzz")}, "the item has no response 'zzz'"),
        ({"kind": "rating", "value": 3}, "a rating is about one response, got 2"),
        (
            {"kind": "rating", "responses": (A,), "value": 5.01},
            r"value: expected a number from 1 to 5, got 5\.01",
        ),
        (
            {"kind": "rating", "responses": (A,), "value": float("nan")},
            "value: expected a number from 1 to 5",
        ),
        (
            {"kind": "rating", "responses": (A,), "value": True},
            "value: expected a number from 1 to 5, got True",
        ),
        ({"kind": "edit", "responses": (A,), "value": 5}, "value: expected text, got 5"),
        (
            {"kind": "comment", "responses": (A,), "value": " \n"},
            "value: expected text, got nothing but blanks",
        ),
        ({"rater": "\ud800"}, "rater: expected 1 to 200 printable characters"),
        ({"rater": " me"}, "rater: expected 1 to 200 printable characters without blanks around"),
        ({"id": "x" * 201}, "id: expected 1 to 200 printable characters"),
        ({"tags": ("fine", "a\tb")}, "a tag: expected 1 to 200 printable characters"),
        (
            {"time": "yesterday"},
            "time: expected a time with its zone such as .*, got 'yesterday'",
        ),
        ({"time": "2026-01-31T12:00:00"}, "time: expected a time with its zone"),
        ({"time": None}, "time: expected a time with its zone"),
    ],
)
def test_what_is_no_answer_is_named(store: FeedbackStore, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^answer: {message}"):
        store.answer(said(**changes))
    assert store.answers() == []


def test_an_answer_to_what_was_never_asked_is_refused(store: FeedbackStore) -> None:
    with pytest.raises(UserError, match="has no item 'nothing'"):
        store.answer(said(item="nothing"))


def test_a_kind_that_is_none_is_named(store: FeedbackStore) -> None:
    with pytest.raises(UserError, match=r"got 'ratings'\. Did you mean 'rating'\?"):
        store.answers(["ratings"])  # type: ignore[list-item]


def test_only_the_rater_takes_an_answer_back_and_it_stays_back(store: FeedbackStore) -> None:
    one = said("a")
    store.answer(one)
    assert not store.retract(one.id, "rater-2")
    assert not store.retract("nothing", "rater-1")
    assert store.answers() == [one]
    assert store.retract(one.id, "rater-1")
    assert store.answers() == []
    assert not store.answer(one)  # a delayed copy of the click
    assert not store.retract(one.id, "rater-1")
    assert store.answer(said("b"))


# Raters and logins


def test_raters_are_counted(store: FeedbackStore) -> None:
    assert store.raters() == []
    store.answer_all([said("a", rater="ann"), said("b", rater="bob", by="judge")])
    store.answer(said(3, rater="ann", kind="rating", responses=(A,)))
    assert store.raters() == [("ann", "person", 2), ("bob", "judge", 1)]


def test_forgetting_leaves_no_trace_of_one_rater_and_all_of_the_others(store: FeedbackStore) -> None:
    pseudonym, token = store.add_account("rater", name="Annabel Leeman")
    other, _ = store.add_account("rater", name="Bob")
    words = "my own secret words that nobody else has typed"
    mine = said(f"{words} " * 500, kind="edit", responses=(A,), rater=pseudonym, id="click-of-mine")
    theirs = said("b", rater=other)
    store.answer_all([mine, theirs, said("a", rater=pseudonym)])
    assert store.forget(pseudonym) == 2
    assert store.forget(pseudonym) == store.forget("\ud800") == 0
    assert store.answers() == [theirs]
    assert store.account(token) is None
    assert [one.pseudonym for one in store.accounts()] == [other]
    for file in store.path.parent.iterdir():
        content = file.read_bytes()
        for trace in (words, "Annabel", pseudonym, "click-of-mine"):
            assert trace.encode() not in content, f"{trace} is still in {file.name}"


def test_a_rater_whose_answers_were_forgotten_may_answer_anew(store: FeedbackStore) -> None:
    label = said("a", rater="judge", by="judge", id="label of a judge")
    store.answer(label)
    store.forget("judge")
    assert store.answer(label)


def test_a_login_is_known_by_its_token_which_is_kept_nowhere(store: FeedbackStore) -> None:
    pseudonym, token = store.add_account("rater", name="Ann")
    admin, other = store.add_account("admin")
    found = store.account(token)
    assert found is not None
    assert (found.pseudonym, found.role, found.name) == (pseudonym, "rater", "Ann")
    assert [one.role for one in store.accounts()] == ["rater", "admin"]
    for wrong in ("", pseudonym, token[:-1], token.lower(), "\ud800", token + "\0", "' OR 1=1 --"):
        assert store.account(wrong) is None
    assert token.encode() not in store.path.read_bytes()
    assert store.revoke(pseudonym)
    assert not store.revoke(pseudonym)
    assert store.account(token) is None
    assert store.account(other) is not None
    assert admin != pseudonym


def test_a_role_or_name_that_is_none_is_refused(store: FeedbackStore) -> None:
    with pytest.raises(UserError, match=r"^role: expected rater, admin, logger, got 'root'$"):
        store.add_account("root")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"^name: expected 1 to 200 printable characters"):
        store.add_account("rater", name="\x1b[2J")


def test_the_secret_of_a_store_stays_the_same_and_is_its_own(store: FeedbackStore, tmp_path: Path) -> None:
    secret = store.secret()
    assert len(secret) == 32
    assert FeedbackStore(store.path).secret() == secret
    assert FeedbackStore(tmp_path / "other.sqlite").secret() != secret


# Events


def event(**changes: Any) -> Event:
    return Event(**{"id": one_time_id(), "response": A, "kind": "click", "time": now(), **changes})


def test_events_are_kept_once_by_time_for_known_responses_and_others(store: FeedbackStore) -> None:
    late = event(id="late", time="2026-01-02T00:00:00Z", value=-2.5, kind="dwell")
    early = event(id="early", time="2026-01-01T00:00:00Z", kind="shown", position=3, propensity=0.25)
    stranger = event(id="stranger", time="2026-01-03T00:00:00Z", response="not yet known")
    assert store.log([late, early, early]) == 2
    assert store.log([replace(late, value=9.0), stranger]) == 1  # the first of an id stands
    assert store.events() == [early, late, stranger]
    assert store.events([A]) == [early, late]
    assert store.events([]) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"propensity": 0.0}, r"propensity: expected a number above 0 and up to 1, got 0\.0"),
        ({"propensity": 1.5}, "propensity: expected a number above 0 and up to 1"),
        ({"propensity": float("nan")}, "propensity: expected a number above 0 and up to 1"),
        ({"position": 0}, "position: expected a whole number from 1, got 0"),
        ({"position": 1.0}, "position: expected a whole number from 1"),
        ({"position": True}, "position: expected a whole number from 1"),
        ({"value": float("inf")}, "value: expected a finite number, got inf"),
        ({"value": "much"}, "value: expected a finite number, got 'much'"),
        ({"kind": ""}, "kind: expected 1 to 200 printable characters"),
        ({"response": None}, "response: expected 1 to 200 printable characters"),
        ({"time": "12:00"}, "time: expected a time with its zone"),
    ],
)
def test_what_is_no_event_is_named(store: FeedbackStore, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^event: {message}"):
        store.log([event(), event(**changes)])
    assert store.events() == []


# The file


def test_the_file_is_for_its_owner_alone_and_nothing_is_left_beside_it(store: FeedbackStore) -> None:
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert list(store.path.parent.iterdir()) == [store.path]
    with closing(sqlite3.connect(store.path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_who_only_reads_makes_no_file(tmp_path: Path, store: FeedbackStore) -> None:
    lost = FeedbackStore(tmp_path / "feedbackk.sqlite")
    with pytest.raises(UserError) as caught:
        lost.existing()
    wanted = f"feedback.path: there is no feedback store {lost.path}. Did you mean '{store.path}'?"
    assert str(caught.value) == wanted
    with pytest.raises(UserError, match="there is no feedback store"):
        FeedbackStore(tmp_path / "no folder" / "feedback.sqlite").existing()
    assert sorted(tmp_path.iterdir()) == [store.path]
    assert store.existing() is store


def test_ids_of_items_do_not_depend_on_who_made_them() -> None:
    again: Item = item_of("1+1?", [response_of("1+1?", "2", run="one"), response_of("1+1?", "3", run="two")])
    assert again.id == PAIR.id
    assert len({A, B, response_of("1+1?", "2").id, response_of("1+1? ", "2", run="one").id}) == 4
    assert item_of("1+1?", PAIR.responses, messages=[{"role": "user", "content": "1+1?"}]).id != PAIR.id
