"""A run as it would serve: its policy, its task, and how long it may speak."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from feedtune.commands.resume import saved_config
from feedtune.config.build import build
from feedtune.config.saved import CONFIG, permitted
from feedtune.contracts import Task
from feedtune.runs.assembly import checked
from feedtune.runs.export import Loaded, export_of, load


@dataclass(frozen=True)
class Served:
    """A run folder, loaded."""

    loaded: Loaded
    config: DictConfig
    checkpoint: str  # sha256 of its weights

    def task(self) -> Task:
        """The task that it was trained on."""
        made: Task = build(self.config.task, "task")
        return made


def served(folder: Path, trust: bool = False) -> Served:
    """A run as it would serve.

    Raises:
        UserError: the folder is no finished run, or names code of its own without `trust`.
    """
    config = checked(permitted(saved_config(folder), folder / CONFIG, trust), folder)
    return Served(load(folder, trust=trust), config, checkpoint_of(folder))


def checkpoint_of(folder: Path) -> str:
    """The sha256 of a run's weights, all its files of them in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(export_of(folder).rglob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
