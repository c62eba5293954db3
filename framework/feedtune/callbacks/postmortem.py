"""checkpoints/postmortem: what a run was like when an error ended it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch.distributed as dist
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from feedtune.checkpoints import SaveCheckpoints
from feedtune.distributed import is_distributed
from feedtune.errors import UserError, one_line

NAME = "postmortem"
"""Of the checkpoint; no run ever goes on from it."""

PATIENCE = timedelta(seconds=10)
"""How long a process that fails waits for the others to fail as well."""


class PostMortem(Callback):
    """Saves the state under another name where an error that is not the user's ends training.

    Of several processes all have to take part in saving. So each one that fails waits a moment for the
    others; where one of them does not fail, which then waits in the middle of a step, nothing is saved.

    Args:
        saver: writes the checkpoint.
    """

    def __init__(self, saver: SaveCheckpoints) -> None:
        self.saver = saver
        self._begun = False
        self._meeting: Any = None  # a group of its own: in that of training a broken step may be under way

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Before, there is no state worth looking at."""
        self._begun = True
        if is_distributed() and dist.is_gloo_available():
            self._meeting = dist.new_group(backend="gloo", timeout=PATIENCE)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Save, and name the place in a note of the exception; no second error may hide the first."""
        wanted = isinstance(exception, Exception) and not isinstance(exception, UserError)
        if not (wanted and self._begun):
            return
        if not self._all_failed():
            exception.add_note("no state was saved for a post-mortem: not all processes failed in this step")
            return
        try:
            path = self.saver.save(trainer, module, name=NAME)
        except Exception as failure:
            exception.add_note(f"its state could not be saved for a post-mortem: {one_line(failure)}")
        else:
            exception.add_note(f"the state at that moment, for a post-mortem, is in {path}")

    def _all_failed(self) -> bool:
        """Whether every process has come to this place, or soon does."""
        if not is_distributed():
            return True
        try:
            dist.monitored_barrier(self._meeting, timeout=PATIENCE)
        except (RuntimeError, ValueError):  # somebody did not come, or is gone; or there is no gloo
            return False
        return True
