"""SIGTERM and Ctrl-C: a run ends at the end of an optimiser step, with a checkpoint; asked twice, at once.

Lightning has handlers of its own, with which a run that was told to stop exits with 0 and leaves nothing:
they are replaced as soon as training has begun.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from feedtune.checkpoints import SaveCheckpoints
from feedtune.config.saved import how_to_go_on
from feedtune.distributed import is_distributed, max_over_ranks
from feedtune.errors import Interrupted

STOPS = (signal.SIGINT, signal.SIGTERM)
"""The signals that end a run; its exit code is 128 and the signal's number: 130 and 143."""

Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, both signals raise `Interrupted` wherever the code is; a second one ends the process at once.

    While a policy trains, `StopAtStep` hears them instead.

    >>> with stoppable():
    ...     signal.raise_signal(signal.SIGTERM)
    Traceback (most recent call last):
    feedtune.errors.Interrupted: stopped by SIGTERM
    """
    former = {one: signal.getsignal(one) for one in STOPS}
    _hear_with(_raise)
    try:
        yield
    finally:
        for one, handler in former.items():
            if handler is not None and _is_main_thread():  # None: it was not set from Python
                signal.signal(one, handler)


class StopAtStep(Checkpoint):
    """Ends the run after the optimiser step during which SIGTERM or SIGINT has come, with a checkpoint.

    A second signal ends the process at once, whatever it does, with the same exit code. Several processes
    agree on the step. A `Checkpoint` to Lightning: so what belongs to an epoch is done before its end.

    Args:
        saver: writes the checkpoint; None: the run keeps none.
    """

    def __init__(self, saver: SaveCheckpoints | None) -> None:
        self.saver = saver
        self.asked = 0  # the signal that has come; 0: none
        self._step = 0  # optimiser steps that have been looked at
        self._trainer: Trainer | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Replace Lightning's handlers, which it has put before ours."""
        self._step, self._trainer = trainer.global_step, trainer
        _hear_with(self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            _end_children(self._trainer)
            _leave(number, frame)
        self.asked = number
        if self._trainer is None or self._trainer.is_global_zero:
            name, how = signal.Signals(number).name, ", with a checkpoint" if self.saver is not None else ""
            _say(f"{name}: the run ends after this optimiser step{how}; once more ends it at once")

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """Stop after a step; not between its micro-batches, whose gradients would be lost."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        # After the last minibatch of an epoch its end is still to come, and the epoch's row with it.
        if not (trainer.is_last_batch or trainer.global_step == trainer.max_steps):
            self._stop_if_asked(trainer, module)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Stop where all that belongs to the epoch has been written."""
        self._stop_if_asked(trainer, module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """From here on no step's end will come."""
        _hear_with(_raise)
        if number := self._heard_by_any(module):
            raise _interrupted(trainer, number, self.saver is not None)

    def _stop_if_asked(self, trainer: Trainer, module: LightningModule) -> None:
        number = self._heard_by_any(module)
        if not number:
            return
        if self.saver is not None:
            self.saver.save(trainer, module)
        raise _interrupted(trainer, number, self.saver is not None)

    def _heard_by_any(self, module: LightningModule) -> int:
        """The signal, if one has come to any of the processes."""
        if not is_distributed():
            return self.asked
        return int(max_over_ranks(torch.tensor(float(self.asked), device=module.device)))


def end_children_at_exit(trainer: Trainer) -> None:
    """When this process exits, so do those that Lightning has started for it.

    They would wait for it until a timeout of half an hour where it ends before they have met.
    """
    atexit.register(_end_children, trainer)


def _interrupted(trainer: Trainer, number: int, saved: bool) -> Interrupted:
    """What the command line says and exits with; of several processes, one speaks."""
    if not trainer.is_global_zero:
        # Lightning kills the process that started this one as soon as this one has failed.
        environment = trainer.strategy.cluster_environment  # type: ignore[attr-defined]
        started = type(environment).__name__ == "LightningEnvironment"
        return Interrupted("", code=0 if started else 128 + number)
    place = f"stopped by {signal.Signals(number).name} after optimiser step {trainer.global_step}"
    if saved:
        hint = f"go on with: {how_to_go_on(Path(trainer.default_root_dir))}"
    else:
        hint = "nothing was saved, so there is nothing to go on from"
    return Interrupted(f"{place}; {hint}", code=128 + number)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _hear_with(handler: Handler) -> None:
    """Handle both signals in this way, but one that the process was started to ignore (`nohup`)."""
    if _is_main_thread():  # Python refuses it elsewhere
        for one in STOPS:
            if signal.getsignal(one) is not signal.SIG_IGN:
                signal.signal(one, handler)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    _hear_with(_leave)  # while the exception goes its way
    raise Interrupted(f"stopped by {signal.Signals(number).name}", code=128 + number)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End the process without any clearing up, which may be what it hangs in."""
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\n")  # the progress bar has hidden the cursor
    os._exit(128 + number)


def _end_children(trainer: Trainer | None) -> None:
    launcher = trainer.strategy.launcher if trainer is not None else None
    if launcher is not None:
        launcher.kill(signal.SIGKILL)


def _say(message: str) -> None:
    """Past Python's buffer, in which the interrupted code may be writing itself."""
    os.write(2, f"feedtune: {message}\n".encode())
