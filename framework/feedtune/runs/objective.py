"""`optimized_metric`: the number that a run hands to whoever compares it with others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from feedtune.errors import UserError, nearest

KEY = "optimized_metric"

DEFAULT = "rollout/reward"
"""What conf/train.yaml has. Algorithms without a reward have no such metric, and nobody has asked for it."""


def check_measured(config: DictConfig) -> None:
    """Refuse, before training, what is measured only while evaluating where nothing is evaluated.

    Raises:
        UserError: naming the key that would have it measured.
    """
    name = config.get(KEY)
    if name and name.startswith("eval/") and config.evaluation.every is None:
        raise UserError(
            f"{KEY}: {name} is measured while training only with evaluation.every=..., the epochs "
            "between two evaluations"
        )


def value_of(name: str | None, metrics: Mapping[str, float], folder: Path, wanted: bool) -> float | None:
    """The metric's last value; None where none was asked for.

    Args:
        name: `optimized_metric`.
        metrics: of the run's last epoch.
        folder: of the run, which is complete.
        wanted: whether a sweeper depends on it, so that it has to be a number.

    Raises:
        UserError: there is no such metric, or its value is wanted and no finite number.

    >>> value_of("loss/policy", {"loss/policy": 0.5}, Path("runs/a"), wanted=False)
    0.5
    >>> value_of("loss/polcy", {"loss/policy": 0.5}, Path("runs/a"), wanted=False)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    feedtune.errors.UserError: optimized_metric: the run has no 'loss/polcy'. Did you mean 'loss/policy'? ...
    """
    if name is None:
        if wanted:
            raise UserError(f"{KEY}: null, but a sweep that looks for the best needs one")
        return None
    complete = f"The run itself is complete: {folder}"
    if name not in metrics:
        if name == DEFAULT and not wanted:
            return None
        known = ", ".join(sorted(metrics))
        raise UserError(
            f"{KEY}: the run has no '{name}'.{nearest(name, metrics)} It has: {known}. {complete}"
        )
    value = metrics[name]
    if wanted and not math.isfinite(value):
        raise UserError(f"{KEY}: {name} is {value} in the last epoch, nothing to compare. {complete}")
    return value
