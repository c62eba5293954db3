"""checkpoints/last.ckpt: where a killed run goes on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from feedtune.errors import UserError
from feedtune.module import TuningModule


class SaveLast(Checkpoint):
    """Writes checkpoints/last.ckpt, so that there is always a whole one: beside it first, then renamed.

    Args:
        every_epochs: epochs between two checkpoints, at least 1; the last epoch always has one.
        every_steps: optimiser steps between two checkpoints within an epoch; null: none. Never between
            the micro-batches of one step: their gradients would be lost.
    """

    def __init__(self, *, every_epochs: int = 1, every_steps: int | None = None) -> None:
        if every_epochs < 1 or (every_steps is not None and every_steps < 1):
            found = f"{every_epochs} and {every_steps}"
            raise UserError(f"checkpoint: every_epochs and every_steps must be at least 1, got {found}")
        self.every_epochs, self.every_steps = every_epochs, every_steps
        self._last_step = -1

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        step = trainer.global_step
        if self.every_steps and step != self._last_step and step % self.every_steps == 0:
            self._last_step = step
            self._save(trainer, module)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every_epochs == 0 or epoch == trainer.max_epochs or trainer.should_stop:
            self._save(trainer, module)

    def _save(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, TuningModule)
        folder = Path(trainer.default_root_dir) / "checkpoints"
        beside = folder / "last.ckpt.partial"
        with module.stopwatch.part("checkpoint"):
            trainer.save_checkpoint(beside, weights_only=False)
            if trainer.is_global_zero:
                os.replace(beside, folder / "last.ckpt")  # noqa: PTH105 - atomic, that is the point
