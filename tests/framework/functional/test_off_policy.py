"""Off-policy estimates: by hand, unbiased by enumeration, and against a resampled error."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from feedtune.functional import Estimate, importance_weights, inverse_propensity, self_normalized

LOGGED = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)]  # p of three responses
TUNED = [Fraction(1, 10), Fraction(2, 5), Fraction(1, 2)]  # pi of them
EARNS = [Fraction(3), Fraction(-1), Fraction(2)]
VALUE = sum(pi * r for pi, r in zip(TUNED, EARNS, strict=True))  # .3 - .4 + 1 = .9


def tensor(values: list[Fraction]) -> torch.Tensor:
    return torch.tensor([float(one) for one in values], dtype=torch.float64)


def logs(length: int) -> list[tuple[float, list[int]]]:
    """Every log of so many responses, with its probability."""
    return [
        (math.prod(float(LOGGED[one]) for one in drawn), list(drawn))
        for drawn in itertools.product(range(3), repeat=length)
    ]


def estimated(drawn: list[int], clip: float | None = None, *, normalized: bool = False) -> Estimate:
    rows = torch.tensor(drawn)
    weight = importance_weights(tensor(TUNED).log()[rows], tensor(LOGGED)[rows], clip)
    return (self_normalized if normalized else inverse_propensity)(tensor(EARNS)[rows], weight)


def test_weights_by_hand() -> None:
    logp = torch.tensor([0.1, 0.4, 0.5]).log()
    propensity = torch.tensor([0.5, 0.1, 1.0])
    assert importance_weights(logp, propensity).tolist() == pytest.approx([0.2, 4.0, 0.5])
    assert importance_weights(logp, propensity, clip=3).tolist() == pytest.approx([0.2, 3.0, 0.5])


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.5, math.nan])
def test_what_was_never_tried_says_nothing(wrong: float) -> None:
    with pytest.raises(ValueError, match="row 2: a propensity is above 0 and at most 1"):
        importance_weights(torch.zeros(2), torch.tensor([0.5, wrong]))


def test_estimates_by_hand() -> None:
    reward, weight = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([2.0, 1.0, 0.5])
    # w r = 2, 0, 1: mean 1, variance ((1)^2 + (-1)^2 + 0) / 2 = 1, error sqrt(1 / 3) = .57735;
    # (sum w)^2 / sum w^2 = 3.5^2 / (4 + 1 + .25) = 12.25 / 5.25 = 2.3333
    found = inverse_propensity(reward, weight)
    assert (found.value, found.error, found.rows) == pytest.approx((1.0, 0.57735, 3), abs=1e-5)
    assert found.effective == pytest.approx(7 / 3)
    # 3 / 3.5 = .857143; residuals 1/7, -6/7, 8/7 times w: 2/7, -6/7, 4/7; sqrt(56 / 49) / 3.5 = .305441
    found = self_normalized(reward, weight)
    assert (found.value, found.error) == pytest.approx((0.857143, 0.305441), abs=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_inverse_propensity_is_unbiased(length: int) -> None:
    mean = sum(chance * estimated(drawn).value for chance, drawn in logs(length))
    assert mean == pytest.approx(float(VALUE), abs=1e-12)


@pytest.mark.parametrize("length", [2, 3])
def test_its_squared_error_is_unbiased_for_its_variance(length: int) -> None:
    found = [(chance, estimated(drawn)) for chance, drawn in logs(length)]
    variance = sum(chance * (one.value - float(VALUE)) ** 2 for chance, one in found)
    # by hand for one row: sum p (w r)^2 - .81 = .01/.5 x 9 + .16/(1/3) + .25/(1/6) x 4 - .81 = 5.85
    assert variance == pytest.approx(5.85 / length, abs=1e-12)
    assert sum(chance * one.error**2 for chance, one in found) == pytest.approx(variance, abs=1e-12)


def test_one_row_knows_no_error() -> None:
    assert math.isnan(estimated([0]).error)
    assert math.isnan(estimated([0], normalized=True).error)


def test_a_policy_that_says_nothing_of_the_log_is_unknown() -> None:
    reward, weight = torch.tensor([1.0, 2.0]), torch.zeros(2)
    found = inverse_propensity(reward, weight)
    assert (found.value, found.error, found.effective) == (0.0, 0.0, 0.0)
    assert math.isnan(self_normalized(reward, weight).value)


def test_clipped_weights_give_too_little_of_rewards_above_0() -> None:
    # only the third response, with weight 3, is clipped to 2: .9 - (3 - 2) x 1/6 x 2 = .9 - 1/3
    mean = sum(chance * estimated(drawn, clip=2).value for chance, drawn in logs(2))
    assert mean == pytest.approx(float(VALUE) - 1 / 3, abs=1e-12)


def counted_logs(length: int) -> list[tuple[float, list[int]]]:
    """The same with logs in order of their responses: each stands for all its arrangements."""
    found = []
    for first in range(length + 1):
        for second in range(length + 1 - first):
            counts = [first, second, length - first - second]
            ways = math.factorial(length) // math.prod(map(math.factorial, counts))
            chance = math.prod(float(p) ** count for p, count in zip(LOGGED, counts, strict=True))
            found.append((ways * chance, [one for one in range(3) for _ in range(counts[one])]))
    return found


def test_the_bias_of_the_self_normalized_one_goes_with_the_number_of_rows() -> None:
    # to first order E[w^2 (v - r)] / n: p w^2 = .02, .48, 1.5 times v - r = -2.1, 1.9, -1.1, in all -.78
    for length, tolerance in ((10, 0.1), (40, 0.025)):
        logs_of = counted_logs(length)
        mean = sum(chance * estimated(drawn, normalized=True).value for chance, drawn in logs_of)
        assert length * (mean - float(VALUE)) == pytest.approx(-0.78, abs=tolerance)
        assert sum(chance for chance, _ in logs_of) == pytest.approx(1.0)


numbers = st.floats(-5, 5, allow_nan=False)
weights = st.floats(0.01, 20)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.tuples(numbers, weights), min_size=2, max_size=8), shift=numbers)
def test_a_constant_reward_is_its_own_estimate(rows: list[tuple[float, float]], shift: float) -> None:
    reward, weight = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    found, moved = self_normalized(reward, weight), self_normalized(reward + shift, weight)
    assert moved.value == pytest.approx(found.value + shift, abs=1e-9)
    assert moved.error == pytest.approx(found.error, abs=1e-9)
    assert min(reward) - 1e-9 <= found.value <= max(reward) + 1e-9
    assert 1 - 1e-9 <= found.effective <= len(rows) + 1e-9
    if max(weight) == min(weight):
        assert found.effective == pytest.approx(len(rows))


def test_errors_are_what_resampling_finds() -> None:
    """The bootstrap knows no formula: both errors against the spread over logs drawn anew from one log."""
    generator = np.random.default_rng(0)
    drawn = generator.choice(3, size=400, p=[float(one) for one in LOGGED])
    ratio = np.array([float(pi / p) for pi, p in zip(TUNED, LOGGED, strict=True)])[drawn]
    earned = np.array([float(one) for one in EARNS])[drawn]
    again = generator.integers(400, size=(4000, 400))
    plain = (ratio[again] * earned[again]).mean(-1)
    normalized = (ratio[again] * earned[again]).sum(-1) / ratio[again].sum(-1)
    rows = list(map(int, drawn))
    assert estimated(rows).error == pytest.approx(plain.std(), rel=0.05)
    assert estimated(rows, normalized=True).error == pytest.approx(normalized.std(), rel=0.05)
    assert estimated(rows).value == pytest.approx((ratio * earned).mean())
