"""When a run's state is saved, and which of its checkpoints stay."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from feedtune.checkpoints.store import FOLDER, STATE, Draft, listed, read_manifest, remove, step_name
from feedtune.config.saved import how_to_go_on
from feedtune.distributed import gather_objects, is_distributed, max_over_ranks
from feedtune.errors import UserError, nearest
from feedtune.module import TuningModule

TOKENIZER = "tokenizer"
"""The folder of a checkpoint that `Codec.load` reads."""


@dataclass(frozen=True)
class Best:
    """What makes a checkpoint worth keeping beside the newest.

    Args:
        metric: of an epoch's row in metrics.csv, such as eval/reward; of those that end an epoch.
        mode: whether more of it is better or less.
    """

    metric: str
    mode: Literal["max", "min"] = "max"


class SaveCheckpoints(Checkpoint):
    """Writes checkpoints/step-*/: at epochs' ends, after optimiser steps, every few minutes, and at the end.

    Never between the micro-batches of one step, whose gradients would be lost: a stop that comes there waits
    for the end of the step. Never between an epoch's last step and its end, either: its row would be lost.
    What is no longer to be kept is removed when the new checkpoint has reached the disk.

    Args:
        every_epochs: epochs between two checkpoints, at least 1; null: none for the sake of epochs.
        every_steps: optimiser steps between two checkpoints; null: none for the sake of steps.
        every_minutes: minutes after which the next optimiser step is followed by one; null: not so.
            Of several processes, the clock of the first counts.
        keep: how many of the newest stay, at least 1.
        best: which one stays beside them; null: none.
    """

    def __init__(
        self,
        *,
        every_epochs: int | None = 1,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        keep: int = 2,
        best: Best | Mapping[str, Any] | None = None,
    ) -> None:
        for name, value in {"every_epochs": every_epochs, "every_steps": every_steps, "keep": keep}.items():
            if value is not None and value < 1:
                raise UserError(f"checkpoint.{name}: expected at least 1, got {value}")
        if every_minutes is not None and not every_minutes > 0:
            raise UserError(f"checkpoint.every_minutes: expected a number above 0, got {every_minutes}")
        self.every_epochs, self.every_steps, self.every_minutes = every_epochs, every_steps, every_minutes
        self.keep = keep
        self.best = _as_best(best)
        self.run: Mapping[str, Any] = {}  # as `manifest.describe` has it
        self.files: Mapping[str, bytes] = {}  # further files of each checkpoint
        self._step = 0  # optimiser steps that have been looked at
        self._since = time.monotonic()  # the last checkpoint
        self._due = False  # the epoch's end has to save, as its last step would have
        self._stopping = False  # somebody wants training to stop, in the middle of a step
        self._saved: tuple[int, Path] | None = None  # in this process: the optimiser step, and where

    # When

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """A run that goes on has its checkpoint."""
        self._step, self._since = trainer.global_step, time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        """Save after an optimiser step, if it is time; the last of an epoch is left to the epoch's end."""
        loader = _of_ours(module).train_dataloader()
        last = loader.yielded >= len(loader)
        if not last and loader.yielded % trainer.accumulate_grad_batches:
            self._stopping |= trainer.should_stop
            trainer.should_stop = False
            return
        trainer.should_stop |= self._stopping
        due = self._is_due(trainer, module)
        if last:
            self._due = due
        elif due or _stops(trainer, trainer.current_epoch):
            self.save(trainer, module)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Save an epoch's end, if it is time; comes after `TuningModule.on_train_epoch_end`."""
        loader = _of_ours(module).train_dataloader()
        if loader.yielded < len(loader):
            return  # training ends within the epoch: the state was saved after the step
        epoch = trainer.current_epoch + 1
        regular = self.every_epochs is not None and epoch % self.every_epochs == 0
        if self._due or regular or epoch == trainer.max_epochs or _stops(trainer, epoch):
            self.save(trainer, module)
        self._due = False
        self._check_best(_of_ours(module).ended_metrics)

    def _is_due(self, trainer: Trainer, module: LightningModule) -> bool:
        step, before = trainer.global_step, self._step
        self._step = step
        by_steps = self.every_steps is not None and step != before and step % self.every_steps == 0
        return by_steps or self._is_time(module)

    def _is_time(self, module: LightningModule) -> bool:
        """Whether so many minutes have gone by; all processes say the same."""
        if self.every_minutes is None:
            return False
        late = module.global_rank == 0 and time.monotonic() - self._since >= self.every_minutes * 60
        if not is_distributed():
            return late
        return bool(max_over_ranks(torch.tensor(float(late), device=module.device)))

    # How

    def save(self, trainer: Trainer, module: LightningModule, name: str | None = None) -> Path:
        """Write a checkpoint of now and remove those that are not to be kept. All processes have to call it.

        Args:
            trainer, module: what trains.
            name: of the folder, taking the place of one of this name; nobody goes on from it, and none is
                removed for it. By default that of the optimiser step.

        Returns:
            The folder; that of before, if this step has been saved already.

        Raises:
            UserError: it cannot be written, as on a full disk, or a weight is not finite.
        """
        if name is None and self._saved is not None and self._saved[0] == trainer.global_step:
            return self._saved[1]
        run = Path(trainer.default_root_dir)
        with _of_ours(module).stopwatch.part("checkpoint"):
            draft = Draft(run) if trainer.is_global_zero else None
            try:
                folder = self._written(trainer, _of_ours(module), draft, name)
            finally:
                if draft is not None:
                    draft.discard()
            if name is None:
                self._saved, self._since = (trainer.global_step, folder), time.monotonic()
                if trainer.is_global_zero:
                    self._remove_others(run, folder)
        return folder

    def _written(self, trainer: Trainer, module: TuningModule, draft: Draft | None, name: str | None) -> Path:
        """Gather the state of all processes; the first writes it and tells the others how that went."""
        usual = trainer.strategy.checkpoint_io
        trainer.strategy.checkpoint_io = StateFile(draft)
        try:
            trainer.save_checkpoint(Path(trainer.default_root_dir) / FOLDER / STATE, weights_only=False)
        finally:
            trainer.strategy.checkpoint_io = usual
        outcome: tuple[str, str] | None = None
        if draft is not None:
            outcome = self._published(trainer, module, draft, name)
        folder, problem = gather_objects(outcome)[0]
        if problem:
            raise UserError(problem)
        return Path(folder)

    def _published(
        self, trainer: Trainer, module: TuningModule, draft: Draft, name: str | None
    ) -> tuple[str, str]:
        """(the folder, what went wrong); one of the two is empty."""
        for path, content in self.files.items():
            draft.add(path, content)
        ended = _epoch_has_ended(trainer)
        facts = {
            "run": self.run,
            "epoch": trainer.current_epoch + ended,
            "step": trainer.global_step,
            "ends_epoch": ended,
            "metrics": {
                key: value if math.isfinite(value) else None for key, value in module.ended_metrics.items()
            }
            if ended
            else {},
        }
        try:
            folder = draft.publish(name or step_name(trainer.global_step), facts, replace=name is not None)
        except UserError as error:
            return "", f"{error}. {_left(draft.run)}"
        return str(folder), ""

    def on_save_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let the end of an epoch be the beginning of the next: Lightning then has nothing to make up for."""
        if _epoch_has_ended(trainer):
            _close_epoch(checkpoint["loops"]["fit_loop"])

    # Which stay

    def _remove_others(self, run: Path, new: Path) -> None:
        """Keep the newest and the best. What is ahead of the new one was refused when the run went on."""
        found = listed(run)
        upto = found[: found.index(new) + 1]
        keep = {*upto[-self.keep :], self._best_of(upto)}
        for folder in found:
            if folder not in keep:
                remove(folder)

    def _best_of(self, folders: list[Path]) -> Path | None:
        """The first of those that are best; of damaged ones nothing is known."""
        if self.best is None:
            return None
        sign = 1.0 if self.best.mode == "max" else -1.0
        values = {folder: _metrics_of(folder).get(self.best.metric) for folder in folders}
        known = {folder: sign * value for folder, value in values.items() if value is not None}
        return max(known, key=lambda folder: known[folder]) if known else None

    def _check_best(self, metrics: Mapping[str, float]) -> None:
        """Refuse a metric that there is none of. Those of evaluations need not be there after every epoch."""
        if self.best is None or self.best.metric in metrics:
            return
        evaluated = any(name.startswith("eval/") for name in metrics)
        if evaluated or not self.best.metric.startswith("eval/"):
            raise UserError(
                f"checkpoint.best.metric: the epoch has no '{self.best.metric}'."
                f"{nearest(self.best.metric, metrics)} It has: {', '.join(metrics)}"
            )


class StateFile(TorchCheckpointIO):
    """How Lightning writes and reads the state: past no second copy in memory, and with `weights_only`.

    Args:
        draft: of the checkpoint that is being written, on the process that writes.
    """

    def __init__(self, draft: Draft | None = None) -> None:
        self.draft = draft

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Into the draft, whatever the path."""
        if self.draft is not None:
            with self.draft.open(STATE) as sink:
                torch.save(checkpoint, sink)  # type: ignore[arg-type]  # all it asks for is `write`

    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Tensors and plain values: what would run code of its own is not read.

        Raises:
            UserError: it is something else than what `save_checkpoint` writes.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it may not know how to read something: it then says so
                state = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except (UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, OSError) as error:
            raise UserError(f"{path}: not a checkpoint of feedtune, or a damaged one") from error
        if not (isinstance(state, dict) and state.keys() >= PARTS):
            raise UserError(f"{path}: not a checkpoint of feedtune: it lacks parts of a run's state")
        return state


PARTS = frozenset(("state_dict", "loops", "optimizer_states", "lr_schedulers", "global_step", "feedtune"))
"""What a state file holds, among others."""


def _as_best(best: Best | Mapping[str, Any] | None) -> Best | None:
    if not isinstance(best, Mapping):
        return best
    if "metric" not in best:
        raise UserError("checkpoint.best.metric: not given; it names a column of metrics.csv")
    return Best(**best)


def _of_ours(module: LightningModule) -> TuningModule:
    assert isinstance(module, TuningModule)
    return module


def _stops(trainer: Trainer, epochs: int) -> bool:
    """Whether training ends here, at the end of a step and after so many whole epochs."""
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return True
    enough = epochs >= (trainer.min_epochs or 0)
    return trainer.should_stop and enough and trainer.global_step >= (trainer.min_steps or 0)


def _epoch_has_ended(trainer: Trainer) -> bool:
    """Whether the hooks of an epoch's end are being called: it is counted, but not yet as completed."""
    epochs: Any = trainer.fit_loop.epoch_progress.current
    return bool(epochs.processed > epochs.completed)


def _close_epoch(loops: dict[str, Any]) -> None:
    """Count the epoch as completed, and no minibatch of the next.

    Lightning (2.6) does so on its own when it goes on from the end of an epoch, but not where
    `trainer.max_steps` is set: there it would draw a minibatch of the next epoch for the one that has ended.
    """
    for counts in loops["epoch_progress"].values():
        counts["completed"] = counts["processed"]
    for name in ("batch_progress", "scheduler_progress"):
        loops[f"epoch_loop.{name}"]["current"] = dict.fromkeys(loops[f"epoch_loop.{name}"]["current"], 0)
    loops["epoch_loop.batch_progress"]["is_last_batch"] = False


def _metrics_of(folder: Path) -> dict[str, float]:
    try:
        return dict(read_manifest(folder).get("metrics") or {})
    except UserError:
        return {}


def _left(run: Path) -> str:
    """What a run that cannot write its checkpoint can go on from."""
    found = listed(run)
    if not found:
        return "The run has no earlier checkpoint"
    return f"{found[-1].name} is as it was: go on with {how_to_go_on(run)}"
