"""Loggers beside metrics.csv."""

from __future__ import annotations

import importlib.util
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from feedtune.callbacks.files import read_metrics
from feedtune.durable import replace_file
from feedtune.errors import missing_extra

WANDB_ID = "wandb_id.txt"
"""In a run folder: the run's id at W&B."""


class _RunLogger(WandbLogger):
    """One W&B run for each run folder: also where a sweep trains several, and where a stopped one goes on.

    Every row has its optimiser step as W&B's own step too: so one that W&B has already, which a run repeats
    that goes on from an earlier checkpoint, is known for what it is.

    Args:
        folder: the run folder, which remembers the id.
        options: of `wandb.init` and of Lightning's logger.
    """

    def __init__(self, *, folder: Path, **options: Any) -> None:
        super().__init__(id=_id_of(folder), save_dir=folder, resume="allow", **options)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if step is None:
            self.experiment.log(dict(metrics))
        elif step >= self.experiment.starting_step:  # what comes before stands on the server
            self.experiment.log({**metrics, "trainer/global_step": step}, step=step)

    def finalize(self, status: str) -> None:
        super().finalize(status)
        self.experiment.finish(exit_code=0 if status == "success" else 1)


def _id_of(folder: Path) -> str:
    path = folder / WANDB_ID
    if not path.is_file() and getattr(rank_zero_only, "rank", 0) == 0:
        replace_file(path, secrets.token_hex(4) + "\n")
    return path.read_text().strip() if path.is_file() else secrets.token_hex(4)


class CatchUp(Callback):
    """Where a run goes on, tells W&B the rows of metrics.csv that the stopped process did not get rid of.

    W&B writes and sends what it is told some time later: with a process that is killed, rows are lost.
    """

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Repeat the rows of the epochs before this one; the logger leaves out those that W&B has."""
        path = Path(trainer.default_root_dir) / "metrics.csv"
        loggers = [logger for logger in trainer.loggers if isinstance(logger, _RunLogger)]
        if not loggers or trainer.current_epoch == 0 or not path.is_file():
            return
        steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)  # of an epoch
        for row in read_metrics(path, trainer.current_epoch):
            numbers = {name: float(value) for name, value in row.items()}
            for logger in loggers:
                logger.log_metrics(numbers, (int(row["epoch"]) + 1) * steps - 1)


def wandb_logger(
    *, project: str, name: str | None = None, offline: bool | None = None, folder: str
) -> Logger:
    """Weights & Biases. Without an account it writes into the run folder; `wandb sync` sends it later.

    A run folder is one W&B run: `feedtune resume` goes on with its id, which stands in wandb_id.txt.
    """
    if offline is None:
        mode = os.environ.get("WANDB_MODE")
        offline = mode != "online" and (mode in ("offline", "disabled") or not _has_key())
    Path(folder).mkdir(parents=True, exist_ok=True)  # W&B writes elsewhere where the folder is missing
    return _RunLogger(project=project, name=name, offline=offline, folder=Path(folder))


def _has_key() -> bool:
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return "WANDB_API_KEY" in os.environ or (netrc.exists() and "wandb" in netrc.read_text(errors="ignore"))


def tensorboard_logger(*, folder: str) -> Logger:
    """TensorBoard event files in the run folder."""
    if importlib.util.find_spec("tensorboard") is None:
        raise missing_extra("tensorboard", "tensorboard", "logger=tensorboard")
    return TensorBoardLogger(save_dir=folder, name="", version="tensorboard")
