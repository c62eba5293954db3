"""What a reward source returns is checked; what it raises is named."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from feedtune.contracts import Sample, Scores
from feedtune.errors import UserError
from feedtune.rewards import score_samples

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
        ([1.0, 2.0], r"^reward 'Says': expected 3 scores, one a sample, got shape \(2,\)$"),
        (torch.ones(3, 1), r"got shape \(3, 1\)"),
        (1.0, r"got shape \(\)"),
        (["good", "bad", "good"], r"^reward 'Says': expected 3 numbers, got list"),
        (None, r"expected 3 numbers, got NoneType"),
        ([1.0, math.inf, 0.0], r"^reward 'Says': the score of row 2 is infinite$"),
        ([NAN, NAN, NAN], r"^reward 'Says': every one of 3 scores is NaN, so there is nothing to learn$"),
        (KeyError("reference"), r"^reward 'Says' failed on 3 samples: KeyError: 'reference'$"),
        (UserError("reward.path: no such function"), r"^reward.path: no such function$"),
    ],
)
def test_what_is_wrong_is_named(value: object, pattern: str) -> None:
    with pytest.raises(UserError, match=pattern):
        score_samples(Says(value), SAMPLES)


def test_no_samples_need_no_scores() -> None:
    assert score_samples(Says([]), []).total.shape == (0,)


def test_a_keyboard_interrupt_is_not_the_rewards_fault() -> None:
    class Interrupted:
        def __call__(self, samples: Sequence[Sample]) -> Scores:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_samples(Interrupted(), SAMPLES)
