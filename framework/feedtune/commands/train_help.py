"""What `feedtune train [choices] --help` prints: groups with their options, then the values chosen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from feedtune.config import hydra_setup
from feedtune.config.discovery import own_conf, providers
from feedtune.config.hydra_errors import explained

APART = ("pipeline",)
"""Groups of other commands."""

WIDTH = 85
"""Characters of a description."""

HEADER = """feedtune train [key=value ...]: tune a language model with feedback.

The values below are those of your choices: feedtune train task=jsonl --help shows what task=jsonl takes.

Groups and their options (choose with group=option):
"""

FOOTER = """Hydra's own flags: --cfg job (print the config), --multirun or -m (sweep), --info, --resolve.
Documentation: README.md and docs/"""


def help_text(overrides: Sequence[str]) -> str:
    """The help for these choices.

    Raises:
        UserError: one of them is wrong.
    """
    hydra_setup.register()
    with explained(overrides), initialize_config_dir(str(own_conf()), version_base="1.3"):
        values = OmegaConf.to_yaml(compose("train", list(overrides)))
    return f"{HEADER}\n{options_text()}\n\nValues (set with key=value):\n\n{values}\n{FOOTER}"


def options_text() -> str:
    """Every group with a line for each of its options."""
    found: dict[str, dict[str, str]] = {}
    for provider in providers():
        for group, option in provider.options():
            assert provider.conf is not None
            file = provider.conf / group / f"{option}.yaml"
            found.setdefault(group, {})[option] = description_of(file)
    groups = []
    for group in sorted(found.keys() - set(APART)):
        options = sorted(found[group].items())
        rows = [f"  {name:<20} {shorten(text, WIDTH, placeholder=' ...')}".rstrip() for name, text in options]
        groups.append("\n".join([group, *rows]))
    return "\n".join(groups)


def description_of(file: Path) -> str:
    """What the comment at the top of an option's file says, without the command that it begins with."""
    comments = []
    for line in file.read_text(encoding="utf-8").splitlines():
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
