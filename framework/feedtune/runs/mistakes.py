"""All mistakes of a config at once.

Each part of a run refuses what it cannot mean, and a run stops at the first. Where one has, the other parts
are tried on their own, without data, weights or loggers, so that the user hears of every mistake in one go.
Nothing here runs where nothing is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import lightning
import torch
from omegaconf import DictConfig, OmegaConf

from feedtune.config.build import build
from feedtune.config.check import check
from feedtune.config.compose import compose_config, to_plain
from feedtune.config.discovery import OPTIONAL
from feedtune.config.trust import resolve
from feedtune.contracts import Backbone
from feedtune.errors import UserError
from feedtune.evaluation import EvaluationOptions
from feedtune.on_policy import check_on_policy, check_on_policy_kinds
from feedtune.rewards import RewardCalls
from feedtune.runs.assembly import GROUPS, TOP_LEVEL, check_seed, check_together, no_reward
from feedtune.runs.trainer_checks import check_trainer

ROWS = 1_000_000
"""Of the task, which is not read: enough for any plan."""


@contextmanager
def all_at_once(config: DictConfig, until: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """A `UserError` inside gets the lines of all other mistakes of the config; not once `until` says so."""
    try:
        yield
    except UserError as error:
        if until():
            raise
        lines = [*str(error).splitlines(), *further(config, str(error).splitlines())]
        if len(lines) == len(str(error).splitlines()):
            raise
        raise UserError("\n".join(lines)) from error


def of_the_rest(overrides: Sequence[str]) -> list[str]:
    """Mistakes of what composes, where other overrides do not."""
    try:
        config = compose_config(overrides)
    except UserError:
        return []
    return further(config)


def further(config: DictConfig, known: Sequence[str] = (), without: Sequence[str] = ()) -> list[str]:
    """Lines on mistakes of parts that `known` has no line on: of a part, the first shows only.

    Args:
        config: as composed; it stays as it is.
        known: lines on mistakes that have been found.
        without: parts that are not to be built.
    """
    config = config.copy()
    OmegaConf.set_struct(config, False)
    config.run_dir = config.get("run_dir") or "."
    for group in OPTIONAL:
        if config.get(group) is None:
            config[group] = {}
    lines: list[str] = []
    attempts: dict[str, Callable[[], Any]] = {"": partial(_types, config), **_attempts(config)}
    for part, attempt in attempts.items():
        if part in without or any(part in _parts_of(line) for line in (*known, *lines)):
            continue
        try:
            attempt()
        except UserError as error:
            lines += [line for line in str(error).splitlines() if line not in (*known, *lines)]
        except Exception:  # it needs what is not there: a run's own attempt will tell
            continue
    return lines


def _types(config: DictConfig) -> None:
    check(config, TOP_LEVEL, GROUPS)


def _parts_of(line: str) -> set[str]:
    """The parts of a run whose keys a line names: `collector.group_size: ...` and `scheduler: ...`."""
    return set(re.findall(r"(?<![\w./'])(callbacks\.\w+|[a-z_]+)(?=[.\[:=])", line.split(": ")[0] + ":"))


def _attempts(config: DictConfig) -> dict[str, Callable[[], Any]]:
    """Something to try for each part."""
    built = partial(_built, config)
    attempts: dict[str, Callable[[], Any]] = {
        "seed": lambda: check_seed(config),
        "reward_calls": lambda: RewardCalls(**to_plain(config.reward_calls)),
        "evaluation": lambda: EvaluationOptions(**to_plain(config.evaluation)),
        "algorithm": lambda: built("algorithm"),
        "collector": lambda: built("collector"),
        "buffer": lambda: built("buffer"),
        "backbone": lambda: _drafted(config),
        "optimizer": lambda: _optimizer(config),
        "scheduler": lambda: _scheduled(config),
        "trainer": lambda: _trainer(config),
        "checkpoint": lambda: built("checkpoint"),
        "task": lambda: built("task"),
        "reward": lambda: built("reward"),
        "optimized_metric": lambda: check_together(config),
    }
    for name in config.get("callbacks") or {}:
        attempts[f"callbacks.{name}"] = partial(build, config.callbacks[name], f"callbacks.{name}")
    attempts["the plan"] = lambda: _planned(built("collector"), built("buffer"))
    parts = ("algorithm", "collector", "buffer")
    attempts["kinds"] = lambda: check_on_policy_kinds(*_kinds(config, parts))
    attempts["on policy"] = lambda: check_on_policy(*map(built, parts))
    return attempts


def _built(config: DictConfig, part: str) -> Any:
    given = {"codec": None, "reward": no_reward} if part == "collector" else {}
    return build(config[part], part, **given)


def _kinds(config: DictConfig, parts: Sequence[str]) -> list[type]:
    """Classes of parts, of which some may refuse their arguments."""
    return [resolve(config[part]._target_, f"{part}._target_") for part in parts]


def _planned(collector: Any, buffer: Any) -> None:
    """Refuses minibatches that a collection has not the rows for."""
    buffer.steps(collector.plan(ROWS, 1).rows)


def _drafted(config: DictConfig) -> None:
    """A backbone without memory for its weights; not one that reads those of others."""
    target = resolve(config.backbone._target_, "backbone._target_")
    if config.init_from is None and target.opening.__func__ is Backbone.opening.__func__:  # type: ignore[attr-defined]
        with torch.device("meta"):
            build(config.backbone, "backbone", vocab_size=32)


def _optimizer(config: DictConfig) -> torch.optim.Optimizer | None:
    make = build(config.optimizer, "optimizer")
    found: torch.optim.Optimizer | None = make and make([torch.nn.Parameter(torch.zeros(2, 2))])
    return found


def _scheduled(config: DictConfig) -> None:
    make = build(config.scheduler, "scheduler")
    if make is not None:
        optimizer = None
        with suppress(UserError):  # it is told of as the optimiser's
            optimizer = _optimizer(config)
        make(optimizer or torch.optim.SGD([torch.nn.Parameter(torch.zeros(2, 2))]), 100)


def _trainer(config: DictConfig) -> lightning.Trainer:
    check_trainer(config.trainer)
    trainer: lightning.Trainer = build(config.trainer, "trainer", logger=False)
    return trainer
