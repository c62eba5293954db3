"""Learning rates, step by step, against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from feedtune.errors import UserError
from feedtune.schedulers import constant, cosine, linear


def rates(make: Any, steps: int, **options: Any) -> list[float]:
    """The learning rate of every optimiser step, for one of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer, steps, **options)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_constant() -> None:
    assert rates(constant, 3) == [1.0, 1.0, 1.0]
    # Three steps of warm-up on the way to 1: a quarter, a half, three quarters.
    assert rates(constant, 5, warmup=3) == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear() -> None:
    # Of 4 steps the k-th is k/4 of the way down.
    assert rates(linear, 4) == [1.0, 0.75, 0.5, 0.25]
    assert rates(linear, 4, floor=0.2) == pytest.approx([1.0, 0.8, 0.6, 0.4])


def test_cosine() -> None:
    # (1 + cos(pi k / 4)) / 2 for k = 0..3; cos(pi/4) = sqrt(1/2).
    root = math.sqrt(0.5)
    assert rates(cosine, 4) == pytest.approx([1.0, (1 + root) / 2, 0.5, (1 - root) / 2])
    # A floor of 1/2 leaves half of every distance.
    assert rates(cosine, 4, floor=0.5) == pytest.approx([1.0, (3 + root) / 4, 0.75, (3 - root) / 4])


def test_a_warmup_below_one_is_a_share_of_all_steps() -> None:
    assert rates(linear, 10, warmup=0.3) == rates(linear, 10, warmup=3)
    # The three steps of warm-up first; then 7 steps of a straight line.
    expected = [1 / 4, 2 / 4, 3 / 4, *(1 - k / 7 for k in range(7))]
    assert rates(linear, 10, warmup=0.3) == pytest.approx(expected)


def test_after_the_end_it_stays_at_the_floor() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = cosine(optimizer, 2, floor=0.25)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)


def test_every_group_keeps_its_own_rate() -> None:
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [weights[0]]}, {"params": [weights[1]], "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    scheduler = linear(optimizer, 2)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.05])


def test_a_warmup_below_zero_is_refused() -> None:
    with pytest.raises(UserError, match=r"^scheduler\.warmup: expected at least 0, got -1$"):
        rates(constant, 3, warmup=-1)
