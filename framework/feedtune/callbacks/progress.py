"""The bar in the terminal."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from feedtune.module import TuningModule, trainable_parameters

SHOWN = {
    "rollout/reward": "reward",
    "policy/kl": "KL",
    "loss/policy": "loss",
    "loss/q": "loss",
    "rollout/length": "length",
}
"""Metrics beside the bar, where a run has them, by their short names."""


class Progress(Callback):
    """One bar over all minibatches of the run, with what is going on and how well.

    Where the output is no terminal it prints a line now and then instead.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar: Bar | None = None
        self.task: Any = None
        self._phase, self._numbers = "", ""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the bar."""
        if not trainer.is_global_zero:
            return
        assert isinstance(module, TuningModule)
        weights = trainable_parameters(module.policy)
        self.console.print(f"{type(module.policy.backbone).__name__} policy, {weights:,} trainable weights")
        module.on_phase = self._show_phase
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
        if self.bar is not None:
            self.bar.update(self.task, advance=1)
            assert isinstance(module, TuningModule)
            self._show_numbers(module)

    def _show_numbers(self, module: TuningModule) -> None:
        means = module.metrics.peek(SHOWN)
        numbers = "  ".join(f"{SHOWN[name]} {value:.3g}" for name, value in means.items())
        if self.bar is not None and numbers:
            self.bar.update(self.task, numbers=numbers)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Without a terminal: about twenty lines a run."""
        assert isinstance(module, TuningModule)
        means = module.finish_epoch()
        epochs = trainer.max_epochs or 0
        if self.bar is None and trainer.is_global_zero and _is_due(trainer.current_epoch + 1, epochs):
            numbers = "  ".join(f"{SHOWN[name]} {means[name]:.3g}" for name in SHOWN if name in means)
            self.console.print(f"epoch {trainer.current_epoch + 1}/{epochs}  {numbers}", highlight=False)

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Close the bar, also after an error."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _is_due(epoch: int, epochs: int) -> bool:
    step = max(1, epochs // 20)
    return epoch % step == 0 or epoch == epochs
