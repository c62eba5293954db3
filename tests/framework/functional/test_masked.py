"""Means and whitening over the marked values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from feedtune.functional import masked_mean, whiten

T, F = True, False


def test_masked_mean() -> None:
    values = torch.tensor([[1.0, torch.nan], [4.0, 7.0]])
    assert masked_mean(values, torch.tensor([[T, F], [F, T]])) == 4.0  # (1 + 7) / 2
    assert masked_mean(values, torch.zeros(2, 2, dtype=torch.bool)) == 0.0


def test_whiten_golden() -> None:
    # Marked: 1, 2, 6. Mean 3, deviations -2, -1, 3, squares sum to 14, Bessel: 14 / 2 = 7.
    values = torch.tensor([[1.0, 99.0], [2.0, 6.0]], dtype=torch.float64)
    found = whiten(values, torch.tensor([[T, F], [T, T]]), eps=0.0)
    root = 7**0.5
    assert found.flatten().tolist() == pytest.approx([-2 / root, 0.0, -1 / root, 3 / root])


def test_whiten_has_bessel_deviation_one_over_the_whole_rollout() -> None:
    generator = torch.Generator().manual_seed(0)
    values = 5 + 3 * torch.randn(7, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(7, 5, generator=generator) < 0.6
    found = whiten(values, mask)[mask].numpy()
    assert np.mean(found) == pytest.approx(0, abs=1e-12)
    assert np.std(found, ddof=1) == pytest.approx(1, abs=1e-7)  # eps is 1e-8


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50, 999])
def test_equal_values_become_zero(count: int) -> None:
    """In float32 the mean of seven times 0.1 is not 0.1; careless whitening makes 0.4 of the difference."""
    values = torch.full((count,), 0.1)
    assert not whiten(values, torch.ones(count, dtype=torch.bool)).any()


def test_one_or_no_marked_value_becomes_zero() -> None:
    values = torch.tensor([3.0, 8.0])
    assert whiten(values, torch.tensor([T, F])).tolist() == [0.0, 0.0]
    assert whiten(values, torch.tensor([F, F])).tolist() == [0.0, 0.0]


def test_unmarked_nan_leaves_no_trace_and_the_dtype_stays() -> None:
    values, mask = torch.tensor([1.0, torch.nan, 3.0]), torch.tensor([T, F, T])
    found = whiten(values, mask)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([-(0.5**0.5), 0.0, 0.5**0.5])
