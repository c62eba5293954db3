"""What the command line may tell Hydra itself: its section of the config names classes as ours does.

Hydra builds its launcher, its sweeper, its callbacks and its logging before a run of ours begins, and it can
be told to read a pickle, or a run's own config as if it were the user's. All of that is looked at first.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from feedtune.config.compose import compose_config, targets_in, to_plain
from feedtune.config.trust import is_under
from feedtune.errors import UserError

OWN = ("feedtune.config.run_folders", "hydra._internal.core_plugins", "hydra_plugins")
"""What may be built for Hydra, beside what the user trusts: ours, its own, and its installed plugins."""

SAMPLERS = re.compile(r"optuna\.samplers\.[A-Z]\w*")
"""What Optuna's sweeper may be told to draw by: classes of that module, and nothing that it has imported."""

LOGGING = ("logging", "colorlog")
"""Where handlers and formatters of its logging may come from."""

STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
"""Where it may write."""

PLAIN = ("hydra.run", "hydra.sweep", "hydra.job", "hydra.mode", "hydra.verbose", "hydra.output_subdir")
"""Keys that build nothing."""


def check_flags(given: Namespace) -> None:
    """Refuse the flags by which Hydra would take the words of a run folder for the user's.

    Raises:
        UserError: naming the flag, and what to do.
    """
    if given.experimental_rerun is not None:
        raise UserError(
            f"--experimental-rerun: {given.experimental_rerun} is a pickle, which can run anything when "
            "it is read; go on with a run by: feedtune resume DIR"
        )
    for flag in ("config_dir", "config_path", "config_name"):
        value = getattr(given, flag)
        if value is not None and ".hydra" in (*Path(value).parts, Path(value).resolve().name):
            raise UserError(
                f"--{flag.replace('_', '-')}: {value} is of a run, whose config is not the user's word; "
                "go on with a run by: feedtune resume DIR"
            )


def check_hydra_section(overrides: Sequence[str]) -> None:
    """Refuse overrides that would make Hydra build what is not trusted.

    Raises:
        UserError: naming the key.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    concerned = [one for one in parsed if _concerns_hydra(one)]
    if not concerned:
        return
    swept = next((one for one in concerned if one.is_sweep_override()), None)
    if swept is not None:
        raise UserError(f"{swept.input_line}: a sweep cannot go over what Hydra builds for itself")
    fixed = [str(one.input_line) for one in parsed if not one.is_sweep_override()]
    config = compose_config(fixed, with_hydra=True)
    allowed = (*OWN, *(to_plain(config.get("trust")) or ()))
    for key, path, homes in _named(_hydra_section(config)):
        if not (isinstance(path, str) and (is_under(path, (*allowed, *homes)) or SAMPLERS.fullmatch(path))):
            raise UserError(
                f"{key}: {path!r} is not trusted; Hydra's own parts and its installed plugins are. "
                f"If you know what it does, add trust=[{str(path).split('.')[0]}]"
            )


def _concerns_hydra(override: Any) -> bool:
    """Whether it may say what Hydra builds."""
    places = [place.replace("/", ".") for place in (override.key_or_group, override.package or "")]
    return any(is_under(place, ["hydra"]) and not is_under(place, PLAIN) for place in places)


def _hydra_section(config: DictConfig) -> dict[str, Any]:
    """Plain values; what only exists while a job runs stays as it is written."""
    section = config.hydra
    built: dict[str, Any] = {}
    for name in ("launcher", "sweeper", "callbacks", "job_logging", "hydra_logging"):
        node = section.get(name)
        try:
            built[name] = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        except Exception:  # a job's number, name or folder, which composing alone does not know
            built[name] = OmegaConf.to_container(node, resolve=False)
    return built


def _named(section: dict[str, Any]) -> Iterator[tuple[str, Any, Sequence[str]]]:
    """(key, path, where it may come from too) of everything that would be called."""
    for key, node in targets_in(section, "hydra"):
        yield f"{key}._target_", node["_target_"], ()
    sweeper = section["sweeper"]
    if isinstance(sweeper, dict) and sweeper.get("custom_search_space"):  # Optuna's: a function that it calls
        yield "hydra.sweeper.custom_search_space", sweeper["custom_search_space"], ()
    for name in ("job_logging", "hydra_logging"):
        for key, path in _factories(section[name], f"hydra.{name}"):
            yield key, path, LOGGING


def _factories(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """What a logging configuration would import: classes, factories, and objects by `ext://`."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name in ("()", "class"):
                yield f"{key}.{name}", value
            else:
                yield from _factories(value, f"{key}.{name}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _factories(value, f"{key}[{index}]")
    elif isinstance(node, str) and node.startswith("ext://") and node not in STREAMS:
        yield key, node.removeprefix("ext://")
