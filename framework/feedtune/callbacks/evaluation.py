"""Held-out metrics while training."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from feedtune.module import TuningModule


class PeriodicEvaluation(Callback):
    """Adds eval/* to the epoch's metrics every few epochs, and after the last.

    Args:
        evaluate: measures the policy; its randomness must be its own.
        every: epochs between two evaluations.
    """

    def __init__(self, evaluate: Callable[[TuningModule], Mapping[str, float]], every: int) -> None:
        self.evaluate, self.every = evaluate, every

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Measure, if it is time."""
        assert isinstance(module, TuningModule)
        epoch = trainer.current_epoch + 1
        if epoch % self.every == 0 or epoch == trainer.max_epochs:
            module.on_phase("evaluate")
            with module.stopwatch.part("evaluation"):
                module.metrics.add(self.evaluate(module))
