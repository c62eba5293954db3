"""A judge's answers in the store: what is asked, what is kept, and what happens when it is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedtune.errors import UserError
from feedtune.feedback import Answer, FeedbackStore, Item, item_of, now, one_time_id, response_of
from feedtune.feedback.labelling import ORDER_DECIDES, LabelOptions, label, revise
from feedtune.feedback.results.agreement import agreement_between
from feedtune.judging import Constitution, Judging, Question, Rubric
from feedtune.rewards import SourceFailure
from scripted_judges import Scripted, texts_in

RUBRIC = Rubric(name="long", asks="Is it long?", levels=["short", "so-so", "long"])
KIND = Constitution(name="kind", principles=["Be kind."])
ALL = LabelOptions()


def by_length(question: Question) -> tuple[str, None]:
    """Three letters are the longest level; of two responses the longer one, "?" where it is silent."""
    shown = texts_in(question)
    if any("?" in text for text in shown.values()):
        return "I do not know", None
    if "RESPONSE" in shown:
        return str(min(3, len(shown["RESPONSE"]))), None
    return ("A" if len(shown["RESPONSE A"]) >= len(shown["RESPONSE B"]) else "B"), None


def editor(question: Question) -> tuple[str, None]:
    if question.words:
        return by_length(question)
    shown = texts_in(question)
    return ("Too short." if "CRITIQUE" not in shown else shown["RESPONSE"] * 2), None


def item(prompt: str, *texts: str) -> Item:
    return item_of(prompt, [response_of(prompt, text, run=f"run {n}") for n, text in enumerate(texts)])


@pytest.fixture
def store(tmp_path: Path) -> FeedbackStore:
    found = FeedbackStore(tmp_path / "feedback.sqlite")
    found.add([item("two", "x", "xxx"), item("one", "xx"), item("even", "xx", "yy"), item("odd", "x?", "y?")])
    return found


def said(store: FeedbackStore) -> dict[str, str | float]:
    """What was answered: the text of the preferred response, or the value."""
    found: dict[str, str | float] = {}
    for one in store.answers():
        asked = store.item(one.item)
        texts = {response.id: response.text for response in asked.responses}
        chosen = {"a": 0, "b": 1}.get(str(one.value))
        found[asked.prompt] = one.value if chosen is None else texts[one.responses[chosen]]
    return found


def test_pairs_are_compared_and_single_responses_rated(store: FeedbackStore) -> None:
    """Level 2 of 3 is in the middle of 1 to 5. Of equal lengths the judge takes the first: a tie."""
    judging = Judging(Scripted(by_length), RUBRIC)
    found = label(store, judging, ALL)
    assert said(store) == {"two": "xxx", "one": 3.0, "even": "tie"}
    assert (found.answers, found.silent, found.known) == (3, 1, 0)
    (rater,) = store.raters()
    assert rater == ("scripted/long", "judge", 3)
    assert {one.tags for one in store.answers() if one.value == "tie"} == {(ORDER_DECIDES,)}
    assert {one.tags for one in store.answers() if one.value != "tie"} == {()}


def test_asked_again_only_what_is_open_is_asked(store: FeedbackStore) -> None:
    label(store, Judging(Scripted(by_length), RUBRIC), ALL)
    store.add([item("new", "xxxx", "x")])
    judge = Scripted(by_length)
    found = label(store, Judging(judge, RUBRIC), ALL)
    assert (found.answers, found.silent, found.known) == (1, 1, 3)
    assert {texts_in(one)["PROMPT"] for one in judge.asked} == {"odd", "new"}
    other = Rubric(name="other", asks="Is it long?", levels=["short", "so-so", "long"])
    assert label(store, Judging(Scripted(by_length), other), ALL).known == 0  # another rater


def test_a_limit_and_a_kind(store: FeedbackStore) -> None:
    found = label(store, Judging(Scripted(by_length), RUBRIC), LabelOptions(kind="rating", limit=4))
    assert (found.answers, found.known) == (4, 0)
    assert [one.value for one in store.answers(["rating"])] == [1.0, 5.0, 3.0, 3.0]


def test_what_was_answered_before_a_failure_is_kept(store: FeedbackStore) -> None:
    def failing(question: Question) -> tuple[str, None]:
        if texts_in(question)["PROMPT"] == "even":
            raise SourceFailure("gone")
        return by_length(question)

    done: list[int] = []
    with pytest.raises(SourceFailure):
        label(store, Judging(Scripted(failing), RUBRIC), LabelOptions(at_once=1), done.append)
    assert said(store) == {"two": "xxx", "one": 3.0}
    assert done == [1, 2]


def test_several_responses_are_compared_two_by_two(store: FeedbackStore) -> None:
    store.add([item("three", "x", "xx", "xxx")])
    label(store, Judging(Scripted(by_length), RUBRIC), ALL)
    three = next(one for one in store.items() if one.prompt == "three")
    assert len([one for one in store.answers() if one.item == three.id]) == 3


def test_agreement_with_people_is_one_number(store: FeedbackStore) -> None:
    label(store, Judging(Scripted(by_length), RUBRIC), ALL)
    two = next(one for one in store.items() if one.prompt == "two")
    ids = tuple(one.id for one in two.responses)
    for rater, value in (("ann", "b"), ("bob", "b"), ("cid", "a")):
        store.answer(
            Answer(
                id=one_time_id(),
                item=two.id,
                kind="comparison",
                responses=ids,
                value=value,
                rater=rater,
                time=now(),
            )
        )
    found = agreement_between(store.answers(), "comparison", "judge", "person")
    assert (found.units, found.percent) == (1, 100.0)


# Critique and revision


def test_revisions_are_edits_and_pairs(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    store.add([item("Hi", "Go")])
    found = revise(store, Scripted(editor), KIND, ALL)
    assert (found.answers, found.silent, found.known) == (1, 0, 0)
    (edit,) = store.answers(["edit"])
    first, pair = store.items()
    assert (edit.item, edit.responses, edit.value) == (first.id, (first.responses[0].id,), "GoGo")
    assert (edit.rater, edit.by) == ("scripted/kind", "judge")
    assert [(one.text, one.run) for one in pair.responses] == [("Go", "run 0"), ("GoGo", "scripted/kind")]
    (preferred,) = store.answers(["comparison"])
    texts = {one.id: one.text for one in pair.responses}
    assert texts[preferred.responses[{"a": 0, "b": 1}[str(preferred.value)]]] == "GoGo"


def test_a_revision_is_not_revised_again(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    store.add([item("Hi", "Go", "No")])
    revise(store, Scripted(editor), KIND, ALL)
    judge = Scripted(editor)
    found = revise(store, judge, KIND, ALL)
    assert (found.answers, len(judge.asked)) == (0, 0)
    assert len(store.items()) == 3


def test_another_constitution_revises_what_was_said_and_no_revisions(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    store.add([item("Hi", "Go", "No")])
    revise(store, Scripted(editor), KIND, ALL)
    other = Constitution(name="brief", principles=["Be brief."])
    assert revise(store, Scripted(editor), other, ALL).answers == 2
    assert sorted(str(one.value) for one in store.answers(["edit"])) == ["GoGo", "GoGo", "NoNo", "NoNo"]


def test_a_revision_is_no_rating(tmp_path: Path) -> None:
    """Even where rubric and constitution share their name, and so the rater."""
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    store.add([item("Hi", "Go")])
    revise(store, Scripted(editor), KIND, ALL)
    rubric = Rubric(name="kind", asks="Is it kind?", levels=["no", "so-so", "yes"])
    assert label(store, Judging(Scripted(by_length), rubric), LabelOptions(kind="rating")).answers == 3


def test_a_judge_that_says_nothing_revises_nothing(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    store.add([item("Hi", "Go")])
    found = revise(store, Scripted(lambda question: (" ", None)), KIND, ALL)
    assert (found.answers, found.silent) == (0, 1)
    assert len(store.items()) == 1


@pytest.mark.parametrize("name", ["limit", "at_once"])
def test_a_bad_option_is_named(name: str) -> None:
    with pytest.raises(UserError, match=rf"^label\.{name}: expected at least 1, got 0"):
        LabelOptions(**{name: 0})


def test_what_others_have_answered_comes_first(store: FeedbackStore) -> None:
    """Else a judge that answers a few is hardly ever asked what people were."""
    even = next(one for one in store.items() if one.prompt == "even")
    a, b = (one.id for one in even.responses)
    store.answer(
        Answer(
            id=one_time_id(),
            item=even.id,
            kind="comparison",
            responses=(b, a),
            value="a",
            rater="ann",
            time=now(),
        )
    )
    judging = Judging(Scripted(by_length), RUBRIC)
    assert label(store, judging, LabelOptions(limit=1)).answers == 1
    assert agreement_between(store.answers(), "comparison", "judge", "person").units == 1
