"""Learning rates over a run, as factors of the optimiser's own."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from feedtune.errors import UserError


def constant(optimizer: Optimizer, total_steps: int, *, warmup: float = 0) -> LambdaLR:
    """The learning rate itself, after a warm-up of so many steps (or such a share of all, below 1)."""
    return _scheduled(optimizer, total_steps, warmup, lambda progress: 1.0)


def cosine(optimizer: Optimizer, total_steps: int, *, warmup: float = 0, floor: float = 0.0) -> LambdaLR:
    """Warm-up, then half a cosine from 1 down to `floor` at the last step (Loshchilov & Hutter 2017)."""
    return _scheduled(
        optimizer, total_steps, warmup, lambda p: floor + (1 - floor) * (1 + math.cos(math.pi * p)) / 2
    )


def linear(optimizer: Optimizer, total_steps: int, *, warmup: float = 0, floor: float = 0.0) -> LambdaLR:
    """Warm-up, then a straight line from 1 down to `floor` at the last step."""
    return _scheduled(optimizer, total_steps, warmup, lambda p: 1 - (1 - floor) * p)


def _scheduled(
    optimizer: Optimizer, total_steps: int, warmup: float, shape: Callable[[float], float]
) -> LambdaLR:
    if warmup < 0:
        raise UserError(f"scheduler.warmup: expected at least 0, got {warmup}")
    rising = warmup * total_steps if 0 < warmup < 1 else warmup

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        return shape(min(1.0, (step - rising) / max(1.0, total_steps - rising)))

    return LambdaLR(optimizer, factor)
