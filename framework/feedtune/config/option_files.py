"""What an option's YAML says, read as text: nothing that it names is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from feedtune.config.discovery import Provider, providers
from feedtune.errors import UserError, one_line

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def mapping_of(file: Path, strict: bool = False) -> dict[str, Any]:
    """The values of a file; empty where there are none. `strict`: read as Hydra does, which takes longer.

    Raises:
        UserError: it cannot be read, or is no mapping.
    """
    try:
        text = file.read_text(encoding="utf-8")
        said: Any = yaml.load(text, _Loader)
        if strict:
            OmegaConf.create(text)
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"cannot be read: {one_line(_place(error) or error)}") from error
    if not (said is None or isinstance(said, dict)):
        raise UserError(f"expected a mapping, got {one_line(said)[:40]!r}")
    return said or {}


def _place(error: Exception) -> str | None:
    """Line and reason of an error of YAML, in short."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return None if mark is None else f"line {mark.line + 1}: {problem}"


def class_of(provider: Provider, group: str, option: str) -> str | None:
    """The `_target_` of an option, its own or that of the option of its group that it begins with, if any.

    Raises:
        UserError: its file cannot be read.
    """
    return _class_in(mapping_of(provider.file(group, option)), group, {option})


def _class_in(said: Mapping[str, Any], group: str, seen: set[str]) -> str | None:
    if "_target_" in said:
        return str(said["_target_"])
    for parent in set(_parents(said, group)) - seen:
        for provider in providers():
            if provider.conf is not None and provider.file(group, parent).is_file():
                return _class_in(mapping_of(provider.file(group, parent)), group, {*seen, parent})
    return None


def _parents(said: Mapping[str, Any], group: str) -> Iterator[str]:
    """The options of the same group in a list of defaults: `generate`, or `/collector/generate@_here_`."""
    defaults = said.get("defaults")
    for entry in defaults if isinstance(defaults, list) else []:
        name = entry.split("@")[0].removeprefix(f"/{group}/") if isinstance(entry, str) else "/"
        if "/" not in name and name != "_self_":
            yield name


def description_of(file: Path) -> str:
    """What the comment at the top of an option's file says, without the command that it begins with."""
    comments = []
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        if not line.startswith("#"):
            break
        comments += [] if line.startswith("# @package") else [line.removeprefix("#").strip()]
    return next(filter(None, map(_without_command, comments)), "")


def _without_command(comment: str) -> str:
    """What follows the command, or the choice.

    >>> _without_command("algorithm=a2c (Mnih et al. 2016). Card:"), _without_command("feedtune train a=b")
    ('(Mnih et al. 2016)', '')
    """
    if comment.startswith("feedtune "):
        return re.sub(r"'[^']*'", "", comment).partition(": ")[2]
    return re.sub(r"^\w+=\w+[:,]? ", "", comment).removesuffix(" Card:").rstrip(".:")
