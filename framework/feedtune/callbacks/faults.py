"""Faults on purpose: `debug=fault` breaks a run at a given step, to see beforehand what happens then."""

from __future__ import annotations

import math
import os
import resource
import signal
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from feedtune.checks import check_choice
from feedtune.contracts import RewardSource, Sample, Scores
from feedtune.errors import UserError
from feedtune.module import TuningModule
from feedtune.rewards import CombinedSource, name_of

Kind = Literal["kill", "nonfinite", "full", "raise"]


class Fault(Callback):
    """Breaks the run once, at an optimiser step. A run that goes on from a checkpoint is left alone.

    Args:
        kind: "kill" ends the process at once (SIGKILL), after the step and before its checkpoint; "nonfinite"
            puts NaN into the step's gradient; "full" lets nothing be written any more from the step's end
            on, as on a full disk; "raise" lets the reward source's next call after the step fail.
        step: the optimiser step, counted from 1.
    """

    def __init__(self, *, kind: Kind = "kill", step: int = 2) -> None:
        check_choice("callbacks.fault.kind", kind, get_args(Kind))
        if step < 1:
            raise UserError(f"callbacks.fault.step: expected at least 1, got {step}")
        self.kind, self.step = kind, step
        self.struck = False
        self.failing = False  # whether the reward source's next call is to fail
        self._room: tuple[int, int] | None = None  # of files, as the process had it before

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Take hold of the reward source, if that is what is to fail."""
        assert isinstance(module, TuningModule)
        self.struck = trainer.ckpt_path is not None
        if self.kind != "raise" or self.struck:
            return
        collector: Any = module.collector
        if not callable(getattr(collector, "reward", None)):
            raise UserError(
                "callbacks.fault.kind: 'raise' lets a reward source fail, and "
                f"{type(collector).__name__} asks none; choose kill, nonfinite or full"
            )
        collector.reward = self._held(collector.reward)

    def _held(self, source: Any) -> RewardSource:
        """The source with each of those under it that call no others held by this fault."""
        if isinstance(source, CombinedSource):
            return source.with_sources({name: self._held(part) for name, part in source.sources.items()})
        inner = getattr(source, "source", None)
        if callable(inner):  # under a policy of calls: the fault strikes below, where the policy can answer
            source.source = self._held(inner)
            return source  # type: ignore[no-any-return]
        return _Failing(source, self)

    def on_before_optimizer_step(
        self, trainer: Trainer, module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """NaN, where every micro-batch has added its gradient."""
        if self.kind == "nonfinite" and trainer.global_step == self.step - 1 and self._strikes():
            weights = (weight for group in optimizer.param_groups for weight in group["params"])
            gradient = next(weight.grad for weight in weights if weight.grad is not None)
            gradient[(0,) * gradient.dim()] = math.nan

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """The rest, once the step is made."""
        if self.kind == "nonfinite" or trainer.global_step != self.step or not self._strikes():
            return
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.kind == "full":
            self._room = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._room[1]))
        else:
            self.failing = True

    def _strikes(self) -> bool:
        first, self.struck = not self.struck, True
        return first

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """The disk has room again, for what is said of the error."""
        self._make_room()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Say if nothing has happened."""
        self._make_room()
        if trainer.is_global_zero and (self.failing or not self.struck):
            asked = "no reward was asked for after" if self.failing else "it ended before"
            Console(stderr=True).print(
                f"callbacks.fault: nothing broke: the run had {trainer.global_step} optimiser steps, and "
                f"{asked} step {self.step}",
                highlight=False,
            )

    def _make_room(self) -> None:
        if self._room is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, self._room)
            self._room = None


class _Failing:
    """A reward source that raises where its fault says so."""

    def __init__(self, source: RewardSource, fault: Fault) -> None:
        self._source, self._fault = source, fault
        self.label = name_of(source)  # what messages call it

    def __call__(self, samples: Sequence[Sample]) -> Scores | torch.Tensor | Sequence[float]:
        if self._fault.failing:
            self._fault.failing = False
            raise RuntimeError("a fault on purpose (debug=fault)")
        return self._source(samples)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)
