"""Reliability curve, expected calibration error and Brier score: by hand, and against other packages."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from feedtune.functional import brier_score, expected_calibration_error, reliability_curve

# Five predictions in four bins of width 1/4:
#   [0, 1/4)    .1 (did not), .2 (did)          predicted .15, observed 1/2
#   [1/4, 1/2)  none
#   [1/2, 3/4)  .5 (did), on the edge: upper    predicted .5,  observed 1
#   [3/4, 1]    .8 (did), 1 (did not)           predicted .9,  observed 1/2
PROBABILITY = torch.tensor([0.1, 0.8, 0.5, 0.2, 1.0], dtype=torch.float64)
OUTCOME = torch.tensor([0, 1, 1, 1, 0])


def close(found: Tensor, expected: list[float] | float) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), atol=1e-12, rtol=0)


def test_the_curve_by_hand() -> None:
    predicted, observed, count = reliability_curve(PROBABILITY, OUTCOME, bins=4)
    close(predicted, [0.15, 0.5, 0.9])
    close(observed, [0.5, 1.0, 0.5])
    assert count.tolist() == [2, 1, 2]


def test_the_error_by_hand() -> None:
    # (2 x .35 + 1 x .5 + 2 x .4) / 5 = 2 / 5
    close(expected_calibration_error(*reliability_curve(PROBABILITY, OUTCOME, bins=4)), 0.4)


def test_the_brier_score_by_hand() -> None:
    # (.1^2 + .2^2 + .5^2 + .8^2 + 1^2) / 5 = (.01 + .04 + .25 + .64 + 1) / 5
    close(brier_score(PROBABILITY, OUTCOME), 0.388)


def test_bins_may_begin_above_zero() -> None:
    """[1/2, 3/4) and [3/4, 1]; what nobody can tell came true by half."""
    probability = torch.tensor([0.5, 0.6, 0.75, 1.0], dtype=torch.float64)
    outcome = torch.tensor([0.5, 1.0, 0.0, 1.0])
    predicted, observed, count = reliability_curve(probability, outcome, bins=2, lowest=0.5)
    close(predicted, [0.55, 0.875])
    close(observed, [0.75, 0.5])
    assert count.tolist() == [2, 2]


@pytest.mark.parametrize("wrong", [-0.01, 1.01, math.nan])
def test_what_is_no_probability_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"expected probabilities in \[0.0, 1\]"):
        reliability_curve(torch.tensor([0.5, wrong]), torch.tensor([1.0, 1.0]))


def test_what_lies_below_the_lowest_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[0.5, 1\]"):
        reliability_curve(torch.tensor([0.4]), torch.tensor([1.0]), lowest=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_of_numbers_is_that_of_the_probabilities(dtype: torch.dtype) -> None:
    predicted, observed, _ = reliability_curve(PROBABILITY.to(dtype), OUTCOME, bins=4)
    assert predicted.dtype == observed.dtype == dtype
    assert brier_score(PROBABILITY.to(dtype), OUTCOME).dtype == dtype


# Off the edges of bins, where the packages round differently.
PREDICTIONS = st.lists(
    st.tuples(st.floats(0.0, 1.0).filter(lambda p: abs(p * 20 - round(p * 20)) > 1e-6), st.booleans()),
    min_size=2,
    max_size=40,
).filter(lambda rows: len({did for _, did in rows}) == 2)


@settings(max_examples=60, deadline=None)
@given(rows=PREDICTIONS, bins=st.sampled_from([1, 2, 5, 10, 20]))
def test_other_packages_find_the_same(rows: list[tuple[float, bool]], bins: int) -> None:
    probability = torch.tensor([p for p, _ in rows], dtype=torch.float64)
    outcome = torch.tensor([int(did) for _, did in rows])
    predicted, observed, count = reliability_curve(probability, outcome, bins)
    observed_there, predicted_there = calibration_curve(outcome.numpy(), probability.numpy(), n_bins=bins)
    close(predicted, predicted_there.tolist())
    close(observed, observed_there.tolist())
    assert int(count.sum()) == len(rows)
    theirs = binary_calibration_error(probability, outcome, n_bins=bins, norm="l1")
    found = expected_calibration_error(predicted, observed, count)
    assert float(found) == pytest.approx(float(theirs), abs=1e-6)  # theirs is float32
    brier = brier_score_loss(outcome.numpy(), probability.numpy())
    assert float(brier_score(probability, outcome)) == pytest.approx(brier, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(rows=PREDICTIONS, bins=st.integers(1, 12))
def test_the_brier_score_is_at_least_the_squared_error_of_calibration(
    rows: list[tuple[float, bool]], bins: int
) -> None:
    """Jensen, twice: mean (p - y)^2 >= mean over bins of (gap)^2 >= (mean |gap|)^2."""
    probability = torch.tensor([p for p, _ in rows], dtype=torch.float64)
    outcome = torch.tensor([float(did) for _, did in rows], dtype=torch.float64)
    error = expected_calibration_error(*reliability_curve(probability, outcome, bins))
    assert float(brier_score(probability, outcome)) >= float(error) ** 2 - 1e-12


def test_chance_alone_is_as_large_as_the_docstring_says() -> None:
    """Of a calibrated model: sqrt(K / P) / 3 on average, here within 15 percent."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(200):
        probability = torch.rand(400, generator=generator, dtype=torch.float64) / 2 + 0.5
        outcome = (torch.rand(400, generator=generator, dtype=torch.float64) < probability).double()
        found.append(float(expected_calibration_error(*reliability_curve(probability, outcome, 10, 0.5))))
    assert sum(found) / len(found) == pytest.approx(math.sqrt(10 / 400) / 3, rel=0.15)
