"""Folders that runs are about to be written into: a guard that Hydra calls before it writes anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from feedtune.checkpoints import listed
from feedtune.config.secrets import refuse_secrets
from feedtune.config.sweeps import begin
from feedtune.errors import UserError


class RefuseOverwrite(Callback):
    """Stops before anything is written: a secret, or into a folder that holds a run or cannot be written.

    Hydra calls it before it writes its own files, and swallows a callback's exceptions: so it exits.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the folder of the one run."""
        _refuse_secrets(config)
        folder = _folder(config, "run")
        if _holds_run(folder):
            _refuse(
                f"hydra.run.dir: {folder} already holds a run. "
                f"Go on with `feedtune resume {folder}` or choose another folder."
            )
        _make(folder, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Look at the folder of a sweep, whose runs have folders of their own in it."""
        _refuse_secrets(config)
        folder = _folder(config, "sweep")
        if _holds_run(folder) or any(map(_holds_run, folder.glob("*/"))):
            _refuse(f"hydra.sweep.dir: {folder} already holds runs. Choose another folder.")
        _make(folder, "hydra.sweep.dir")
        begin(folder)


def _refuse_secrets(config: DictConfig) -> None:
    """Hydra is about to write the config and the command line into `.hydra`."""
    lines: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    try:
        refuse_secrets(OmegaConf.to_container(config, resolve=False), lines)
    except UserError as error:
        _refuse(str(error))


def _folder(config: DictConfig, kind: str) -> Path:
    return Path(str(config.hydra[kind].dir))


def _holds_run(folder: Path) -> bool:
    """Whether a start would lose something: a checkpoint or a policy."""
    return bool(listed(folder)) or (folder / "export" / "feedtune.json").exists()


def _make(folder: Path, key: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _refuse(f"{key}: {folder} cannot be made: {error.strerror}")


def _refuse(message: str) -> NoReturn:
    print(f"feedtune: {message}", file=sys.stderr)
    raise SystemExit(2)
