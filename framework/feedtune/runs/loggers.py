"""Loggers beside metrics.csv."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from feedtune.errors import missing_extra


class _RunLogger(WandbLogger):
    """One W&B run for each run of ours, also where a sweep trains several in one process."""

    def finalize(self, status: str) -> None:
        super().finalize(status)
        self.experiment.finish(exit_code=0 if status == "success" else 1)


def wandb_logger(
    *, project: str, name: str | None = None, offline: bool | None = None, folder: str
) -> Logger:
    """Weights & Biases. Without an account it writes into the run folder; `wandb sync` sends it later."""
    if offline is None:
        mode = os.environ.get("WANDB_MODE")
        offline = mode != "online" and (mode in ("offline", "disabled") or not _has_key())
    Path(folder).mkdir(parents=True, exist_ok=True)  # W&B writes elsewhere where the folder is missing
    return _RunLogger(project=project, name=name, offline=offline, save_dir=folder)


def _has_key() -> bool:
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return "WANDB_API_KEY" in os.environ or (netrc.exists() and "wandb" in netrc.read_text(errors="ignore"))


def tensorboard_logger(*, folder: str) -> Logger:
    """TensorBoard event files in the run folder."""
    if importlib.util.find_spec("tensorboard") is None:
        raise missing_extra("tensorboard", "tensorboard", "logger=tensorboard")
    return TensorBoardLogger(save_dir=folder, name="", version="tensorboard")
