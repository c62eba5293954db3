"""checkpoints/postmortem: what a run was like when an error ended it."""

from __future__ import annotations

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from feedtune.checkpoints import SaveCheckpoints
from feedtune.errors import UserError, one_line

NAME = "postmortem"
"""Of the checkpoint; no run ever goes on from it."""


class PostMortem(Callback):
    """Saves the state under another name where an error that is not the user's ends training.

    Not where several processes train: the others wait in the middle of a step and would not take part.

    Args:
        saver: writes the checkpoint.
    """

    def __init__(self, saver: SaveCheckpoints) -> None:
        self.saver = saver
        self._begun = False

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Before, there is no state worth looking at."""
        self._begun = True

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Save, and name the place in a note of the exception; no second error may hide the first."""
        wanted = isinstance(exception, Exception) and not isinstance(exception, UserError)
        if not (wanted and self._begun and trainer.world_size == 1):
            return
        try:
            path = self.saver.save(trainer, module, name=NAME)
        except Exception as failure:
            exception.add_note(f"its state could not be saved for a post-mortem: {one_line(failure)}")
        else:
            exception.add_note(f"the state at that moment, for a post-mortem, is in {path}")
