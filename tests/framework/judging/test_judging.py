"""Ratings and comparisons by a judge whose every word is known: the numbers that come out, worked by hand."""

from __future__ import annotations

import math

import pytest

from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.judging import Constitution, Judging, Question, Rubric
from scripted_judges import Scripted, texts_in

RUBRIC = Rubric(
    name="kind",
    asks="Is it kind?",
    levels=["unkind", "so-so", "kind"],
    canaries=[
        {"prompt": "Hi", "better": "Hello!", "worse": "No."},
        {"prompt": "Ho", "better": "Good day!", "worse": "Hm."},
    ],
)


def rate(text: str, weights: dict[str, float] | None = None) -> float:
    judging = Judging(Scripted(lambda question: (text, weights)), RUBRIC)
    return float(judging.rate([Sample("Hi", "Ho")])[0])


# Ratings


def test_a_rating_is_the_mean_level_by_probability() -> None:
    """Levels 1, 2, 3 are worth 0, 1/2, 1: 0.2 x 0 + 0.2 x 1/2 + 0.6 x 1 = 0.7."""
    assert rate("3", {"1": 0.2, "2": 0.2, "3": 0.6}) == pytest.approx(0.7)


def test_probabilities_are_of_the_words_alone() -> None:
    """0.1 and 0.3 of all tokens are 1/4 and 3/4 of the words: 3/4 x 1/2 = 0.375."""
    assert rate("2", {"1": 0.1, "2": 0.3, "3": 0.0}) == pytest.approx(0.375)


def test_without_probabilities_the_level_counts_that_is_named() -> None:
    assert [rate(text) for text in ("1", "2", "Score: 3")] == [0.0, 0.5, 1.0]


def test_what_is_no_answer_has_no_score() -> None:
    judging = Judging(Scripted(lambda question: ("I would say 2 or 3.", {"2": 0.9})), RUBRIC)
    assert math.isnan(judging.rate([Sample("Hi", "Ho")])[0])
    assert judging.counts()["unreadable"] == 1
    assert judging.counts()["unreadable"] == 0


def test_each_sample_has_its_own_score() -> None:
    said = {"one": "1", "two": "2", "three": "3"}
    judge = Scripted(lambda question: (said[texts_in(question)["RESPONSE"]], None))
    samples = [Sample("Hi", text) for text in ("three", ":", "one", "two")]
    assert Judging(judge, RUBRIC).rate(samples).tolist() == [1.0, 0.0, 0.0, 0.5]
    assert len(judge.asked) == 3


def test_the_judge_is_shown_conversation_and_columns() -> None:
    rubric = Rubric(name="right", asks="Is it right?", levels=["no", "yes"], columns=["reference", "tags"])
    judge = Scripted(lambda question: ("1", None))
    talk = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"})
    Judging(judge, rubric).rate([Sample("raw", "4", talk, {"reference": "four", "tags": ["sum"]})])
    assert texts_in(judge.asked[0]) == {
        "PROMPT": "system: Be brief.\nuser: 2+2?",
        "REFERENCE": "four",
        "TAGS": '["sum"]',
        "RESPONSE": "4",
    }
    assert "Is it right?" in judge.asked[0].system
    assert "1: no\n2: yes" in judge.asked[0].system


def test_a_column_that_is_missing_is_named() -> None:
    rubric = Rubric(name="right", asks="Is it right?", levels=["no", "yes"], columns=["reference"])
    with pytest.raises(UserError) as caught:
        Judging(Scripted(lambda question: ("1", None)), rubric).rate(
            [Sample("Hi", "Ho", columns={"referense": ""})]
        )
    assert str(caught.value) == (
        "rubric.columns: the row with the prompt 'Hi' has no column 'reference'; its columns are: referense. "
        "Did you mean 'referense'?"
    )


# Comparisons


def leaning(first: float) -> Scripted:
    """Prefers "good" with 0.8, and whatever stands first by `first` more."""

    def say(question: Question) -> tuple[str, dict[str, float]]:
        shown = texts_in(question)
        likely = (0.8 if shown["RESPONSE A"] == "good" else 0.2) + first
        return ("A" if likely > 0.5 else "B"), {"A": likely, "B": 1 - likely}

    return Scripted(say)


@pytest.mark.parametrize("bias", [0.0, 0.1, -0.15])
def test_a_liking_for_a_place_cancels_and_is_measured(bias: float) -> None:
    """Both orders say 0.8 + bias and 1 - (0.2 + bias) of "good": their mean is 0.8 whatever the bias."""
    judging = Judging(leaning(bias), RUBRIC)
    found = judging.compare([(Sample("Hi", "good"), "bad"), (Sample("Hi", "bad"), "good")])
    assert found.first.tolist() == pytest.approx([0.8, 0.2])
    assert found.agreed.tolist() == [True, True]
    assert judging.counts()["position_bias"] == pytest.approx(bias)
    assert math.isnan(judging.counts()["position_bias"])


def test_where_the_order_decides_the_two_do_not_agree() -> None:
    """First shown: 0.8 + 0.4 is cut by nobody here, and 0.2 + 0.4 > 1/2: always the first."""
    found = Judging(leaning(0.4), RUBRIC).compare([(Sample("Hi", "good"), "bad")])
    assert found.agreed.tolist() == [False]


def test_a_judge_that_only_says_a_letter_ties_where_the_order_decides() -> None:
    found = Judging(Scripted(lambda question: ("A", None)), RUBRIC).compare([(Sample("Hi", "x"), "y")])
    assert (found.first.tolist(), found.agreed.tolist()) == ([0.5], [False])


def test_one_order_without_an_answer_leaves_the_pair_open() -> None:
    judge = Scripted(lambda q: ("A" if texts_in(q)["RESPONSE A"] == "x" else "neither", None))
    judging = Judging(judge, RUBRIC)
    found = judging.compare([(Sample("Hi", "x"), "y"), (Sample("Hi", "x"), "x")])
    assert math.isnan(found.first[0])
    assert found.first[1] == 0.5  # equal texts need no judge
    assert not found.agreed.any()
    assert judging.counts()["unreadable"] == 1


def test_nothing_is_asked_about_nothing() -> None:
    judging = Judging(Scripted(lambda question: ("1", None)), RUBRIC)
    assert judging.rate([]).shape == (0,)
    assert judging.compare([]).first.shape == (0,)
    assert judging.counts()["requests"] == 0


# Canaries


def test_canaries_are_asked_once_and_leave_the_counts_alone() -> None:
    """It knows the first pair, and gives both of the second the same score: half are right."""
    said = {"Hello!": "3", "No.": "1", "Good day!": "2", "Hm.": "2"}
    judge = Scripted(lambda question: (said[texts_in(question)["RESPONSE"]], None))
    judging = Judging(judge, RUBRIC)
    assert [judging.canaries("score"), judging.canaries("score")] == [0.5, 0.5]
    assert len(judge.asked) == 4
    assert judging.counts()["unreadable"] == 0


def test_a_canary_that_the_order_decides_is_not_right() -> None:
    always_first = Scripted(lambda question: ("A", {"A": 0.9, "B": 0.1}))
    assert Judging(always_first, RUBRIC).canaries("pairwise") == 0.0
    knowing = Scripted(
        lambda q: ("A", None) if texts_in(q)["RESPONSE A"] in ("Hello!", "Good day!") else ("B", None)
    )
    assert Judging(knowing, RUBRIC).canaries("pairwise") == 1.0


def test_without_canaries_nothing_is_known() -> None:
    rubric = Rubric(name="brief", asks="Is it brief?", levels=["long", "brief"])
    assert math.isnan(Judging(Scripted(lambda question: ("1", None)), rubric).canaries("score"))


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": ["one"]}, "rubric.levels: expected 2 to 9, worst first, got 1"),
        ({"levels": [str(n) for n in range(10)]}, "rubric.levels: expected 2 to 9, worst first, got 10"),
        ({"asks": " "}, "rubric.asks: expected a question, got nothing"),
        (
            {"canaries": [{"prompt": "Hi", "better": "Ho"}]},
            "rubric.canaries[0].worse: expected text, got None",
        ),
        (
            {"canaries": [{"prompt": "", "better": "", "worse": "", "wors": ""}]},
            "rubric.canaries[0].wors: unknown key; a canary has prompt, better, worse. Did you mean 'worse'?",
        ),
    ],
)
def test_a_bad_rubric_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Rubric(**{"name": "x", "asks": "Is it?", "levels": ["no", "yes"], **options})  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"principles": []}, "constitution.principles: expected at least one, got none"),
        ({"rounds": 0}, "constitution.rounds: expected at least 1, got 0"),
    ],
)
def test_a_bad_constitution_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Constitution(**{"name": "x", "principles": ["Be kind."], **options})  # type: ignore[arg-type]
    assert str(caught.value) == message
