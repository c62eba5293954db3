"""What is wrong with the stages of a pipeline, before any has run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from feedtune.commands import evaluate, export, feedback, report
from feedtune.commands.feedback.settings import settings_of, split, store_of
from feedtune.config.compose import compose_config, to_plain
from feedtune.config.hydra_errors import ComposeError
from feedtune.config.saved import remember_code
from feedtune.config.trust import trust
from feedtune.config.types import fits, wrong_type
from feedtune.errors import UserError, nearest
from feedtune.runs.mistakes import further

STAGES = ("train", "evaluate", "export", "report", "feedback")
"""Commands that a stage can be."""

KEYS = ("command", "arguments")
"""What a stage has."""

MADE_BY_STAGES = ("backbone", "reward", "task")
"""Parts that may read what an earlier stage writes: they are tried when their stage begins."""

SAME_IN_ALL = ("evaluation.", "reward_calls.")
"""How keys begin that an evaluation has whatever options the run has."""


@dataclass
class _Before:
    """What the stages up to here leave behind."""

    made: list[Path] = field(default_factory=list)
    runs: dict[Path, list[str]] = field(default_factory=dict)  # the overrides of those that train, by folder
    told: list[str] = field(default_factory=list)  # mistakes of those


def problems_of(stages: Mapping[str, Any], folder: Path) -> list[str]:
    """Every mistake of every stage, a line each, beginning with the stage's key.

    Args:
        stages: by name, as in conf/pipeline/NAME.yaml.
        folder: of the pipeline: a stage that trains makes a folder of its name in it.
    """
    before = _Before()
    lines = []
    for name, stage in stages.items():
        lines += _unknown(f"stages.{name}", stage)
        wrong = _misshapen(f"stages.{name}", stage)
        lines += wrong or [f"stages.{name}: {line}" for line in _told(stage, folder / name, before)]
        if wrong:  # what would make no folder: those after it are not at fault
            before.made.append(folder / name)
    return lines


def _unknown(key: str, stage: Any) -> list[str]:
    return [
        f"{key}.{one}: there is no such key.{nearest(str(one), KEYS)} A stage has: {', '.join(KEYS)}"
        for one in (stage if isinstance(stage, dict) else ())
        if one not in KEYS
    ]


def _misshapen(key: str, stage: Any) -> list[str]:
    """What is no stage at all."""
    if not isinstance(stage, dict):
        return [wrong_type(key, stage, dict[str, Any])]
    lines = []
    command, arguments = stage.get("command"), stage.get("arguments", [])
    if command not in STAGES:
        known = f"expected one of {', '.join(STAGES)}, got {command!r}.{nearest(str(command), STAGES)}"
        lines.append(f"{key}.command: {known}")
    if not fits(arguments, list[str]):
        lines.append(wrong_type(f"{key}.arguments", arguments, list[str]))
    return lines


def _told(stage: Mapping[str, Any], folder: Path, before: _Before) -> list[str]:
    command, arguments = stage["command"], stage.get("arguments", [])
    try:
        if command == "train":
            return _of_training(arguments, folder, before)
        if command == "evaluate":
            return _of_evaluation(arguments, before)
        if command == "export":
            before.made += map(Path, arguments[1:])
            given = export.parser().read(arguments)
            return _not_made("DIR", [given.folder], before)
        if command == "feedback":
            return _of_feedback(arguments, folder, before)
        given = report.read(arguments)
        return _not_made("DIR", given.folders, before)
    except UserError as error:
        return str(error).splitlines()


def _of_training(arguments: Sequence[str], folder: Path, before: _Before) -> list[str]:
    lines, config = _composed(arguments)
    start = None if config is None else config.get("init_from")
    if isinstance(start, str):
        lines += _not_made("init_from", [Path(start)], before)
    before.made.append(folder)
    before.runs[_absolute(folder)] = list(arguments)
    before.told += lines
    return lines


def _of_evaluation(arguments: Sequence[str], before: _Before) -> list[str]:
    """With the config that its run will have, which may not be there yet."""
    given = evaluate.parser().read(arguments)
    lines = _not_made("DIR", [given.folder], before)
    evaluate.check_used(given.overrides)
    typed: list[str] = given.overrides
    own = before.runs.get(_absolute(given.folder))
    if own is None:  # a run that is there already speaks for itself; these are the same in all
        own, typed = [], [one for one in typed if one.startswith(SAME_IN_ALL)]
    if not typed:
        return lines
    try:
        compose_config(own)
    except ComposeError as error:
        own = list(error.left)
    found, _ = _composed([*evaluate.still_meant(own, typed), *typed])
    return [*lines, *(line for line in found if line not in before.told)]


def _of_feedback(arguments: Sequence[str], folder: Path, before: _Before) -> list[str]:
    """The subcommand, its overrides, and the run folders of this pipeline that it reads.

    What else it names is its own to check: some of it is a file that it writes.
    """
    feedback.module_of(arguments)
    words, overrides = split(arguments[1:])
    before.made.append(folder)  # it may keep its store there
    own = _absolute(folder.parent)
    paths = [Path(word) for word in words if not word.startswith("-")]
    inside = [one for one in paths if not one.suffix and _absolute(one).is_relative_to(own)]
    lines = _not_made("DIR", inside, before)
    try:
        feedback.check_installed(arguments)
        config = settings_of(overrides)
        if arguments[0] != "key":
            store_of(config, next(iter(paths), None))
    except UserError as error:
        lines += str(error).splitlines()
    return lines


def _composed(overrides: Sequence[str]) -> tuple[list[str], DictConfig | None]:
    """Mistakes of a run's overrides, and the config that they give, as far as they do."""
    try:
        config = compose_config(overrides)
        trust(to_plain(config.trust))  # what the stages name is the user's own, also where one goes on
        remember_code(config)
        return further(config, without=MADE_BY_STAGES), config
    except ComposeError as error:
        rest, left = _composed(error.left) if error.left else ([], None)
        return [*str(error).splitlines(), *rest], left
    except UserError as error:
        return str(error).splitlines(), None


def _not_made(key: str, folders: Sequence[Path], before: _Before) -> list[str]:
    """Folders that are not there, and that no stage before makes."""
    made = [_absolute(one) for one in before.made]
    lacking = [
        one
        for one in folders
        if not one.exists() and not any(_absolute(one).is_relative_to(stage) for stage in made)
    ]
    return [
        f"{key}: {one}: there is no such folder, and no stage before makes it."
        f"{nearest(str(one), map(str, before.made))}"
        for one in lacking
    ]


def _absolute(folder: Path) -> Path:
    return Path(
        os.path.normpath(Path.cwd() / folder)
    )  # links are not followed: some lead to what is not there yet
