"""Where in its life a run can be killed: at minibatches and epochs, and at each touch of a file.

`watch` prepares a child for it; it changes nothing in what the run computes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, Checkpoint

BATCH = ("begins", "stepped", "saved")
"""Of minibatch `n`: before its loss; after its step, where it ends one; after the checkpoint of that."""

EPOCH = ("ends", "rows", "closed")
"""Of epoch `n`: before metrics.csv has its row; after that, before its checkpoint; after that."""


def watch(request: Mapping[str, Any], rank: int) -> None:
    """Let this process note where it is, and kill itself where it is told to.

    Args:
        request: `kill`: {"place": one of BATCH or EPOCH, "n": number}, perhaps with the `number` of another
            signal, the message of an `error` that is raised instead, or the one `rank` that it is for; or
            {"event": number, "torn": bool};
            `journal`: takes a line for each minibatch; `events`: takes every touch of a file.
        rank: of this process; the first one notes.
    """
    kill = request.get("kill") or {}
    if kill.get("rank", rank) != rank:
        kill = {}
    journal = Path(request["journal"]) if request.get("journal") and rank == 0 else None
    fit = lightning.Trainer.fit
    events = None
    if "event" in kill or request.get("events"):
        events = Events(kill.get("event"), kill.get("torn", False), request.get("events"))

    def watched(trainer: lightning.Trainer, *args: Any, **named: Any) -> None:
        trainer.callbacks.insert(0, First(kill, journal))
        trainer.callbacks.append(Last(kill))
        trainer.callbacks.append(AtTheEnd(kill))
        if events is not None:
            events.begin(trainer)
        fit(trainer, *args, **named)
        if events is not None:
            events.end()

    lightning.Trainer.fit = watched


def die() -> None:
    """SIGKILL: nothing of this process runs any more."""
    os.kill(os.getpid(), signal.SIGKILL)


def place_of(trainer: lightning.Trainer, batch: int) -> int:
    """The number of a minibatch in the run, from 0."""
    return trainer.current_epoch * int(trainer.num_training_batches) + batch


class First(Callback):
    """Hears everything before the callbacks of the run."""

    def __init__(self, kill: Mapping[str, Any], journal: Path | None) -> None:
        self.kill, self.journal = kill, journal

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self._note("start", step=trainer.global_step, epoch=trainer.current_epoch)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        n = place_of(trainer, batch_idx)
        self._note("batch", n=n, step=trainer.global_step)
        _die_if(self.kill, "begins", n)

    def on_train_batch_end(self, trainer: Any, module: Any, out: Any, batch: Any, batch_idx: int) -> None:
        _die_if(self.kill, "stepped", place_of(trainer, batch_idx))

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        _die_if(self.kill, "ends", trainer.current_epoch)

    def _note(self, what: str, **where: int) -> None:
        if self.journal is not None:
            with self.journal.open("a") as file:
                file.write(json.dumps({"what": what, **where}) + "\n")


class Last(Callback):
    """Hears of a minibatch after its checkpoint, and of an epoch after its rows."""

    def __init__(self, kill: Mapping[str, Any]) -> None:
        self.kill = kill

    def on_train_batch_end(self, trainer: Any, module: Any, out: Any, batch: Any, batch_idx: int) -> None:
        _die_if(self.kill, "saved", place_of(trainer, batch_idx))

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        _die_if(self.kill, "rows", trainer.current_epoch)


class AtTheEnd(Checkpoint):
    """Hears of an epoch after its checkpoint."""

    def __init__(self, kill: Mapping[str, Any]) -> None:
        self.kill = kill

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        _die_if(self.kill, "closed", trainer.current_epoch)


def _die_if(kill: Mapping[str, Any], place: str, n: int) -> None:
    if kill.get("place") != place or kill["n"] != n:
        return
    if "error" in kill:
        raise RuntimeError(kill["error"])
    os.kill(os.getpid(), kill.get("number", signal.SIGKILL))


class Events:
    """Every touch of a file in the run folder while it trains, in order, each before it happens.

    Opening for writing, renaming, removing and making come from the interpreter's audit hook; `os.fsync` has
    none and is wrapped.

    Args:
        at: the number of the event to die at; None: at none.
        torn: of an fsync: the file has only its first half then, as after a power cut.
        record: takes the list of events when training ends.
    """

    AUDITED = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")

    def __init__(self, at: int | None, torn: bool, record: str | None) -> None:
        self.at, self.torn, self.record = at, torn, record
        self.seen: list[dict[str, Any]] = []
        self._trainer: lightning.Trainer | None = None
        self._fsync: Callable[[Any], None] = os.fsync

    def begin(self, trainer: lightning.Trainer) -> None:
        """Training begins: what is written from now on counts."""
        self._trainer = trainer
        self._root = str(Path(trainer.default_root_dir).resolve())
        os.fsync = self._synced
        sys.addaudithook(self._heard)

    def end(self) -> None:
        """Training has ended: write the record."""
        self._trainer = None
        if self.record:
            Path(self.record).write_text(json.dumps(self.seen))

    def _heard(self, what: str, arguments: tuple[Any, ...]) -> None:
        if self._trainer is None or what not in self.AUDITED:
            return
        if what == "open" and not (arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            return
        path = arguments[0]
        if (
            what in ("os.remove", "os.rmdir") and arguments[1] >= 0
        ):  # told apart by the folder that is open there
            path = os.path.join(os.readlink(f"/proc/self/fd/{arguments[1]}"), os.fsdecode(path))  # noqa: PTH115, PTH118
        self._count(what, path)

    def _synced(self, fd: Any) -> None:
        number = fd if isinstance(fd, int) else fd.fileno()
        path = Path(f"/proc/self/fd/{number}").readlink()
        whole_file = path.is_file()

        def tear() -> None:
            if self.torn and whole_file:
                os.ftruncate(number, os.fstat(number).st_size // 2)

        self._count("fsync" if whole_file else "fsync folder", path, tear)
        self._fsync(fd)

    def _count(self, what: str, path: Any, before_death: Callable[[], None] = lambda: None) -> None:
        if not isinstance(path, str | bytes | os.PathLike) or self._trainer is None:
            return
        place = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a path in the hook must not touch files
        if not place.startswith(self._root):
            return
        step = self._trainer.global_step
        self.seen.append({"what": what, "path": place[len(self._root) + 1 :], "step": step})
        if self.at == len(self.seen) - 1:
            before_death()
            die()
