"""Learning rates over a run, as factors of the optimiser's own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from feedtune.errors import UserError, nearest

LENGTH = ("total_steps", "T_max")
"""What torch's schedulers call the number of optimiser steps."""

UNFIT = {
    "LambdaLR": "it takes functions, which no config has; write a maker of your own",
    "MultiplicativeLR": "it takes functions, which no config has; write a maker of your own",
    "ReduceLROnPlateau": "it waits for a metric, and there is none after each optimiser step",
    "ChainedScheduler": "it is made of other schedulers; write a maker of your own",
    "SequentialLR": "it is made of other schedulers; write a maker of your own",
    "SWALR": "it is for averaged weights, which nothing here keeps",
}
"""Schedulers of torch that are no use here, and why."""


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


def from_torch(
    optimizer: Optimizer, total_steps: int, *, name: str, arguments: Mapping[str, Any] | None = None
) -> LRScheduler:
    """A scheduler of `torch.optim.lr_scheduler`, asked after each optimiser step.

    Args:
        optimizer: whose learning rate it sets.
        total_steps: optimiser steps of the run; its `total_steps` or `T_max` where `arguments` has none.
        name: of the class.
        arguments: of its constructor, beside the optimiser.

    Raises:
        UserError: there is no such class, it is of no use here, or it has no such argument.
    """
    known = {one for one, kind in vars(lr_scheduler).items() if _is_scheduler(kind)} - set(UNFIT)
    if name in UNFIT:
        raise UserError(f"scheduler.name: {name} cannot be used: {UNFIT[name]}")
    if name not in known:
        among = ", ".join(sorted(known))
        raise UserError(f"scheduler.name: expected one of {among}, got '{name}'.{nearest(name, known)}")
    kind = getattr(lr_scheduler, name)
    parameters = list(inspect.signature(kind).parameters)[1:]
    given = dict(arguments or {})
    for argument in given:
        if argument not in parameters:
            raise UserError(
                f"scheduler.arguments.{argument}: {name} has no such argument."
                f"{nearest(argument, parameters)} It has: {', '.join(parameters)}"
            )
    length = {one: total_steps for one in LENGTH if one in parameters and not given.keys() & {one, "epochs"}}
    scheduler: LRScheduler = kind(optimizer, **{**length, **given})
    return scheduler


def _is_scheduler(kind: Any) -> bool:
    """Whether it is a class that torch offers, and not the base of all."""
    return (
        isinstance(kind, type) and issubclass(kind, LRScheduler) and not kind.__name__.endswith("LRScheduler")
    )


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
