"""Learning rates, step by step, against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from feedtune.errors import UserError
from feedtune.schedulers import UNFIT, constant, cosine, from_torch, linear


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


# Schedulers of torch

NEEDED: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 2},
    "MultiStepLR": {"milestones": [1, 3]},
    "ExponentialLR": {"gamma": 0.9},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 0.5, "cycle_momentum": False},
    "OneCycleLR": {"max_lr": 0.5, "cycle_momentum": False},
}
"""Arguments without which a class cannot be built."""

TORCHS = {
    name
    for name, kind in vars(lr_scheduler).items()
    if isinstance(kind, type)
    and issubclass(kind, lr_scheduler.LRScheduler)
    and name.strip("_") != "LRScheduler"
}


@pytest.mark.parametrize("name", sorted(TORCHS))
def test_every_scheduler_of_torch_moves_the_rate_or_says_why_not(name: str) -> None:
    if name in UNFIT:
        with pytest.raises(UserError, match=rf"^scheduler\.name: {name} cannot be used: it "):
            from_torch(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]), 9, name=name)
        return
    found = rates(from_torch, 9, name=name, arguments=NEEDED.get(name, {}))
    assert len(set(found)) > 1


def test_torchs_own_length_is_that_of_the_run() -> None:
    # Half a cosine over 4 steps: (1 + cos(pi k / 4)) / 2.
    assert rates(from_torch, 4, name="CosineAnnealingLR") == pytest.approx(rates(cosine, 4))
    assert rates(from_torch, 4, name="CosineAnnealingLR", arguments={"T_max": 2})[2] == pytest.approx(0.0)
    # Three tenths of the steps up to max_lr, the rest down.
    up = rates(from_torch, 10, name="OneCycleLR", arguments=NEEDED["OneCycleLR"])
    assert up.index(max(up)) == 2
    assert rates(from_torch, 5, name="StepLR", arguments={"step_size": 2, "gamma": 0.5}) == [
        1,
        1,
        0.5,
        0.5,
        0.25,
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "StepLr"}, r"scheduler\.name: expected one of .* got 'StepLr'\. Did you mean 'StepLR'\?"),
        (
            {"name": "StepLR", "arguments": {"step": 1}},
            r"scheduler\.arguments\.step: StepLR has no such argument\. Did you mean 'step_size'\?",
        ),
    ],
)
def test_what_torch_does_not_have(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        rates(from_torch, 2, **given)
