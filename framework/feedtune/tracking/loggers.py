"""The loggers that `logger=` chooses; metrics.csv is written in any case."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from lightning.pytorch.loggers import Logger

from feedtune.checks import check_choice
from feedtune.errors import UserError, missing_extra
from feedtune.tracking.tensorboard import RunTensorBoard
from feedtune.tracking.wandb_run import RunWandb

Mode = Literal["online", "offline", "disabled"]

MODES = (*get_args(Mode), "shared", "dryrun", "run")
"""What W&B takes in WANDB_MODE."""

PROJECT = "feedtune"


def wandb_logger(
    *,
    project: str | None = None,
    entity: str | None = None,
    name: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str] = (),
    notes: str | None = None,
    mode: Mode | None = None,
    samples_every: int | None = 1,
    histograms: bool = True,
    log_model: bool = False,
    console: bool = False,
    folder: str,
) -> Logger:
    """Weights & Biases. Without an account it writes into the run folder; `wandb sync` sends it later.

    A run folder is one W&B run: `feedtune resume` goes on with its id, which stands in wandb_id.txt. A run
    that an agent of W&B starts has the id that the sweep gave it, in the sweep's project.

    Args:
        project: on the server; null: WANDB_PROJECT, or "feedtune".
        entity: user or team that has the project; null: WANDB_ENTITY, or the account's own.
        name: of the run; null: WANDB_NAME, or W&B makes one up.
        group: of runs that belong together; null: WANDB_RUN_GROUP, or none.
        job_type: the run's kind within its group; null: WANDB_JOB_TYPE, or none.
        tags: words to find the run by; none: those of WANDB_TAGS.
        notes: a text about the run; null: WANDB_NOTES, or none.
        mode: "online", "offline" (into the run folder) or "disabled" (nowhere); null: WANDB_MODE, or else
            online where a key is found.
        samples_every: epochs between two tables of samples, at least 1; null: none.
        histograms: of the reward and length of all rows of a rollout.
        log_model: upload the exported model at the end.
        console: whether what the terminal shows goes to W&B too. Nobody looks for secrets in it.
        folder: of the run.

    Raises:
        UserError: an argument, or WANDB_MODE, is none of what there is.
    """
    if mode is not None:
        check_choice("logger.mode", mode, get_args(Mode))
    if samples_every is not None and samples_every < 1:
        raise UserError(f"logger.samples_every: expected at least 1, got {samples_every}")
    if mode == "disabled" and log_model:
        raise UserError("logger.log_model: with logger.mode=disabled nothing goes to W&B; leave it false")
    Path(folder).mkdir(parents=True, exist_ok=True)  # W&B writes elsewhere where the folder is missing
    return RunWandb(
        folder=Path(folder),
        samples_every=samples_every,
        histograms=histograms,
        log_model=log_model,
        console=console,
        project=project or os.environ.get("WANDB_PROJECT") or PROJECT,
        entity=entity,
        name=name,
        group=group,
        job_type=job_type,
        tags=list(tags) or None,
        notes=notes,
        mode=mode or _mode_of_environment(),
    )


def _mode_of_environment() -> str:
    mode = os.environ.get("WANDB_MODE")
    if mode:
        if mode not in MODES:
            raise UserError(f"WANDB_MODE: expected one of {', '.join(get_args(Mode))}, got {mode!r}")
        return mode
    return "online" if _has_key() else "offline"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return netrc.exists() and "wandb" in netrc.read_text(errors="ignore")


def tensorboard_logger(*, folder: str) -> Logger:
    """TensorBoard event files in the run folder: every metric, and the run's facts under HPARAMS."""
    if importlib.util.find_spec("tensorboard") is None:
        raise missing_extra("tensorboard", "tensorboard", "logger=tensorboard")
    return RunTensorBoard(save_dir=folder, name="", version="tensorboard", default_hp_metric=False)
