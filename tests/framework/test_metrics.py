"""Means over an epoch."""

from __future__ import annotations

import io
import math

import pytest
import torch

from feedtune.metrics import EpochMetrics


def test_weighted_means_by_name() -> None:
    metrics = EpochMetrics()
    metrics.add({"a": 1.0, "b": torch.tensor(10.0)}, weight=3)
    metrics.add({"a": torch.tensor(5.0)}, weight=1)
    assert metrics.means() == {"a": 2.0, "b": 10.0}  # (3 * 1 + 5) / 4


def test_nan_has_no_weight() -> None:
    metrics = EpochMetrics()
    metrics.add({"a": math.nan, "b": math.nan}, weight=5)
    metrics.add({"a": 2.0}, weight=1)
    means = metrics.means()
    assert means["a"] == 2.0
    assert math.isnan(means["b"])


def test_clear_forgets() -> None:
    metrics = EpochMetrics()
    metrics.add({"a": 1.0})
    metrics.clear()
    assert metrics.means() == {}


def test_holds_no_graph() -> None:
    metrics = EpochMetrics()
    metrics.add({"a": torch.ones((), requires_grad=True) * 2})
    assert metrics.means() == {"a": 2.0}
    assert not any(part.requires_grad for pair in metrics._sums.values() for part in pair)


def test_small_numbers_are_not_lost_beside_many() -> None:
    metrics = EpochMetrics()
    for _ in range(1000):
        metrics.add({"a": torch.tensor(0.1)}, weight=1e6)
    assert metrics.means()["a"] == pytest.approx(0.1, rel=1e-7)


def test_goes_on_after_a_checkpoint() -> None:
    whole, first = EpochMetrics(), EpochMetrics()
    for metrics in (whole, first):
        metrics.add({"a": 1.0, "b": 0.1}, weight=3)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = EpochMetrics()
    second.load_state_dict(torch.load(file, weights_only=True))
    for metrics in (whole, second):
        metrics.add({"a": torch.tensor(7.0), "c": 2.0}, weight=2)
    assert second.means() == whole.means()
