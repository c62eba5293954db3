"""The bar in the terminal."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.status import Status

from feedtune.module import TuningModule, trainable_parameters

SHOWN = {
    "rollout/reward": "reward",
    "policy/kl": "KL",
    "loss/policy": "loss",
    "loss/q": "loss",
    "loss/reward": "loss",
    "reward/preference_accuracy": "accuracy",
    "rollout/length": "length",
}
"""Metrics beside the bar, where a run has them, by their short names."""

LINES = 20
"""Lines that a whole run prints where the output is no terminal."""


class Progress(Callback):
    """One bar over all minibatches of the run, with what is going on and how well.

    Where the output is no terminal it prints a line now and then.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar: Bar | None = None
        self.task: Any = None
        self.waiting: Status | None = None  # what is shown before training begins
        self.total: int | None = None  # minibatches of the run
        self.done = 0

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """The module encodes the task's rows next."""
        if trainer.is_global_zero:
            self.waiting = self.console.status("encoding the rows")
            self.waiting.start()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the bar."""
        if not trainer.is_global_zero:
            return
        self._stop_waiting()
        assert isinstance(module, TuningModule)
        weights = trainable_parameters(module.policy)
        self.console.print(f"{type(module.policy.backbone).__name__} policy, {weights:,} trainable weights")
        module.on_phase = self._show_phase
        batches = int(trainer.num_training_batches)
        self.total = _batches_of_run(trainer, batches)
        self.done = trainer.current_epoch * batches
        if not self.console.is_terminal:
            return
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
        )
        total = (
            None if trainer.max_epochs in (None, -1) else trainer.max_epochs * trainer.num_training_batches
        )
        done = trainer.current_epoch * int(trainer.num_training_batches)
        self.task = self.bar.add_task("training", total=total, completed=done, numbers="")
        self.bar.start()

    def _show_phase(self, phase: str) -> None:
        self._phase = {"collect": "sampling", "update": "learning", "evaluate": "evaluating"}.get(
            phase, phase
        )
        if self.bar is not None:
            self.bar.update(self.task, description=f"{self._phase:<10}")

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """One minibatch further."""
        if not trainer.is_global_zero:
            return
        assert isinstance(module, TuningModule)
        with module.stopwatch.part("logging"):
            self._advance(trainer, module)

    def _advance(self, trainer: Trainer, module: TuningModule) -> None:
        self.done += 1
        if self.bar is not None:
            self.bar.update(self.task, advance=1, numbers=_numbers(module))
        elif self.total and (self.done * LINES // self.total) > ((self.done - 1) * LINES // self.total):
            percent = self.done * 100 // self.total
            place = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {percent:3d} %"
            self.console.print(f"{place}  {_numbers(module)}", highlight=False)

    def _stop_waiting(self) -> None:
        if self.waiting is not None:
            self.waiting.stop()
            self.waiting = None

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Close the bar after an error too: Lightning ends without `teardown` then."""
        self._close()

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        self._stop_waiting()
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _batches_of_run(trainer: Trainer, batches: int) -> int | None:
    """Minibatches until the first of the limits on epochs and optimiser steps; None without any."""
    limits = []
    if trainer.max_epochs not in (None, -1):
        limits.append(trainer.max_epochs * batches)
    if trainer.max_steps != -1:
        limits.append(trainer.max_steps * trainer.accumulate_grad_batches)
    return min(limits, default=None)


def _numbers(module: TuningModule) -> str:
    """The epoch's means so far, in one line."""
    means = module.metrics.peek(SHOWN)
    return "  ".join(f"{SHOWN[name]} {value:.3g}" for name, value in means.items())
