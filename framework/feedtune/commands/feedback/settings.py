"""What the subcommands share: which words are folders and which overrides, and where the store is."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from feedtune.commands.arguments import Arguments
from feedtune.config.check import check
from feedtune.config.compose import compose_config, to_plain
from feedtune.config.local_plugins import adopt, use
from feedtune.config.plugin_problems import warn
from feedtune.config.trust import trust
from feedtune.config.types import fits, wrong_type
from feedtune.errors import UserError, nearest_path
from feedtune.feedback.options import NODES
from feedtune.feedback.storage.store import FeedbackStore, store_path

OVERRIDE = re.compile(r"[+~]*[A-Za-z_][\w./@:-]*=|~[A-Za-z_]")

TOP_LEVEL: dict[str, Any] = {
    "seed": int,
    "trust": list[str],
    "plugins_path": str | None,
    "run_dir": str | None,
    **NODES,
}
"""Types of what conf/feedback.yaml has beside groups."""

GROUPS = ("reward", "judge", "rubric", "constitution")
"""Groups of conf/feedback.yaml."""

EPILOG = (
    "Overrides such as feedback.path=FILE and feedback.key=VARIABLE change settings: see conf/feedback.yaml."
)


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A subcommand's words as (ordinary arguments, overrides).

    What is there on the disk is no override, even if its name has a "=" in it.

    >>> split(["runs/a", "feedback.port=9000", "reward=length"])
    (['runs/a'], ['feedback.port=9000', 'reward=length'])
    """
    overrides = [word for word in words if OVERRIDE.match(word) and not Path(word).exists()]
    return [word for word in words if word not in overrides], overrides


def settings_of(overrides: Sequence[str]) -> DictConfig:
    """The config of `feedtune feedback`, composed from conf/feedback.yaml and checked.

    Raises:
        UserError: an unknown key, group or option, or a value of another type; all of them, a line each.
    """
    overrides = adopt(list(overrides))
    warn(overrides)
    config = compose_config(overrides, "feedback")
    prefixes = to_plain(config.trust)
    if not fits(prefixes, list[str]):
        raise UserError(wrong_type("trust", prefixes, list[str]))
    trust(prefixes)
    if isinstance(config.plugins_path, str):  # of anything else `check` complains
        config.plugins_path = str(use(config.plugins_path))
    check(config, TOP_LEVEL, GROUPS)
    return config


@dataclass(frozen=True)
class Given:
    """What a subcommand was given."""

    words: argparse.Namespace  # its ordinary arguments
    config: DictConfig
    store: FeedbackStore


def opened(
    subcommand: str,
    description: str | None,
    arguments: Sequence[str],
    further: Mapping[str, str] | None = None,
    *,
    flags: Callable[[Arguments], None] = lambda parser: None,
    must_exist: bool = True,
    runs: bool = True,
) -> Given:
    """Read the arguments of a subcommand that works on one store: [DIR], others, flags and overrides.

    Args:
        subcommand: its name.
        description: for its `--help`.
        arguments: as typed.
        further: its ordinary arguments after DIR, with their help.
        flags: adds its flags.
        must_exist: whether there has to be a store already.
        runs: whether DIR is more than the place of the store; else feedback.path=... is given in its place.
    """
    rest, overrides = split(arguments)
    named = any(re.match(r"\+*feedback\.path=", word) for word in overrides)
    parser = Arguments(prog=f"feedtune feedback {subcommand}", description=description, epilog=EPILOG)
    if runs or not named:
        nargs = "?" if runs else None
        parser.add_argument("place", metavar="DIR", nargs=nargs, help="a run folder, or the store itself")
    for name, text in (further or {}).items():
        parser.add_argument(name, metavar=name.upper(), help=text)
    flags(parser)
    words = parser.read(rest)
    config = settings_of(overrides)
    place = getattr(words, "place", None)
    store = store_of(config, place)
    if not named and place is not None and not store.path.parent.is_dir():
        raise UserError(f"DIR: there is no folder {store.path.parent}.{nearest_path(store.path.parent)}")
    return Given(words, config, store.existing() if must_exist else store)


def store_of(config: DictConfig, place: str | Path | None = None) -> FeedbackStore:
    """The store that the config names; else that of a run folder, or the one beside a file of items.

    Args:
        config: from `settings_of`.
        place: a run folder, a file of items, or a store itself; None: the config has to name one.

    Raises:
        UserError: neither names a place, or the key is none.
    """
    if config.feedback.path is not None:
        return FeedbackStore(config.feedback.path, config.feedback.key)
    if place is None:
        raise UserError("feedback.path: not given; name the store, or a run folder that has one")
    return FeedbackStore(store_path(place), config.feedback.key)
