"""One call of a reward source: what it returns is checked, what it raises is named, with its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from feedtune.contracts import Sample, Scores
from feedtune.errors import UserError
from feedtune.rewards import Missing, SourceFailure, call_source, checked_scores, name_of, score_samples

SAMPLES = [Sample("p", "a"), Sample("p", "b"), Sample("q", "c")]
NAN = math.nan


class Says:
    """A reward source that returns what it was made with, or raises it."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value  # type: ignore[return-value]


@pytest.mark.parametrize(
    "value",
    [
        [1, 2.5, -3],
        (1, 2.5, -3),
        torch.tensor([1, 2.5, -3], dtype=torch.float64),
        torch.tensor([1, 2.5, -3], requires_grad=True),
        Scores(torch.tensor([1, 2.5, -3])),
    ],
)
def test_forms_that_are_accepted(value: object) -> None:
    found = score_samples(Says(value), SAMPLES)
    assert found.total.tolist() == [1.0, 2.5, -3.0]
    assert found.total.dtype == torch.float32
    assert not found.total.requires_grad


def test_nan_stays_nan_and_parts_come_through() -> None:
    found = score_samples(
        Says(Scores(torch.tensor([NAN, 1, 2]), {"one": torch.tensor([NAN, 3, 4])})), SAMPLES
    )
    assert found.total.isnan().tolist() == [True, False, False]
    assert found.parts["one"].tolist()[1:] == [3.0, 4.0]


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        (
            [1.0, 2.0],
            r"^reward 'Says': expected 3 scores, one a sample, got shape \(2,\) \(the first prompt: 'p'\)$",
        ),
        (torch.ones(3, 1), r"got shape \(3, 1\)"),
        (1.0, r"got shape \(\)"),
        (["good", "bad", "good"], r"^reward 'Says': expected 3 numbers, got list"),
        ([10**400, 0, 0], r"the first prompt: 'p'"),
        (None, r"expected 3 numbers, got NoneType"),
        (
            [1.0, math.inf, 0.0],
            r"^reward 'Says': the score of row 2 is infinite \(the prompt of row 2: 'p'\)$",
        ),
        ([1.0, -math.inf, 1e39], r"the scores of rows 2, 3 are infinite \(the prompt of row 2: 'p'\)$"),
        (
            Scores(torch.zeros(3), {"fun": torch.tensor([0.0, 0.0, math.inf])}),
            r"^reward 'Says': part 'fun': the score of row 3 is infinite \(the prompt of row 3: 'q'\)$",
        ),
        (
            KeyError("reference"),
            r"^reward 'Says' failed on 3 samples \(the first prompt: 'p'\): KeyError: 'reference' "
            r"\(test_failures\.py:27\)$",
        ),
        (RuntimeError("two\nlines"), r": RuntimeError: two lines \(test_failures\.py:27\)$"),
    ],
)
def test_what_is_wrong_is_named(value: object, pattern: str) -> None:
    with pytest.raises(SourceFailure, match=pattern):
        score_samples(Says(value), SAMPLES)


def test_the_line_of_the_source_is_named_not_that_of_what_it_calls() -> None:
    def source(samples: Sequence[Sample]) -> list[float]:
        return [float(math.sqrt(-1)) for _ in samples]

    line = source.__code__.co_firstlineno + 1
    with pytest.raises(SourceFailure, match=rf"\(test_failures\.py:{line}\)$"):
        call_source(source, SAMPLES)


def test_no_samples_need_no_scores() -> None:
    assert score_samples(Says([]), []).total.shape == (0,)


def test_a_keyboard_interrupt_is_not_the_rewards_fault() -> None:
    class Interrupted:
        def __call__(self, samples: Sequence[Sample]) -> Scores:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_samples(Interrupted(), SAMPLES)


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        ([NAN, NAN, NAN], r"^reward 'Says': every one of 3 scores is NaN, so there is nothing to learn$"),
        (UserError("reward.path: no such function"), r"^reward.path: no such function$"),
    ],
)
def test_what_the_user_chose_is_no_failure_of_the_source(value: object, pattern: str) -> None:
    with pytest.raises(UserError, match=pattern) as caught:
        score_samples(Says(value), SAMPLES)
    assert not isinstance(caught.value, SourceFailure)


def test_where_the_calls_failed_nothing_but_nan_is_no_mistake_of_the_users() -> None:
    assert score_samples(Says(Missing.of(3)), SAMPLES).total.isnan().all()
    with pytest.raises(UserError, match="every one of 3 scores is NaN"):
        score_samples(Says(Scores(torch.full((3,), NAN))), SAMPLES)


def test_many_rows_are_counted_and_a_long_prompt_is_cut() -> None:
    samples = [Sample("word " * 20, "a")] * 8
    with pytest.raises(SourceFailure) as caught:
        checked_scores([math.inf] * 8, samples, "mine")
    assert str(caught.value) == (
        "reward 'mine': the scores of rows 1, 2, 3, 4, 5 and 3 more are infinite "
        "(the prompt of row 1: 'word word word word word word word wo...')"
    )


def test_too_many_scores_are_a_wrong_number_even_where_one_of_them_is_infinite() -> None:
    with pytest.raises(SourceFailure, match=r"expected 3 scores.*got shape \(4,\)"):
        call_source(Says([0.0, 0.0, 0.0, math.inf]), SAMPLES)


class Labelled(Says):
    label = "reward.url=somewhere"


def good(samples: Sequence[Sample]) -> list[float]:
    return [1.0 for _ in samples]


def test_a_source_is_called_by_its_label_its_class_or_its_own_name() -> None:
    assert name_of(Labelled(0)) == "reward.url=somewhere"
    assert name_of(Says(0)) == "reward 'Says'"
    assert name_of(good) == "reward 'good'"


def test_the_error_that_a_source_raised_is_kept_as_the_cause() -> None:
    error = OSError("gone")
    with pytest.raises(SourceFailure) as caught:
        call_source(Says(error), SAMPLES)
    assert caught.value.__cause__ is error
    assert caught.value.retry_after == 0.0
