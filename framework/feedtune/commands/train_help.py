"""What `feedtune train [choices] --help` prints: groups with their options, then the values chosen."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten

from omegaconf import OmegaConf

from feedtune.config.compose import compose_config
from feedtune.config.discovery import Provider, providers
from feedtune.config.local_plugins import KEY
from feedtune.config.option_files import description_of
from feedtune.text.visible import plain

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
    values = OmegaConf.to_yaml(compose_config(overrides))
    return f"{HEADER}\n{options_text()}\n\nValues (set with key=value):\n\n{values}\n{FOOTER}"


def options_text() -> str:
    """Every group with a line for each of its options."""
    found: dict[str, dict[str, str]] = {}
    for provider in providers():
        for group, option in provider.options():
            text = shorten(description_of(provider.file(group, option)), WIDTH, placeholder=" ...")
            found.setdefault(group, {}).setdefault(option, f"{text}{_whose(provider)}".strip())
    groups = []
    for group in sorted(found.keys() - set(APART)):
        rows = [f"  {name:<20} {text}".rstrip() for name, text in sorted(found[group].items())]
        groups.append("\n".join([group, *rows]))
    return "\n".join(groups)


def _whose(provider: Provider) -> str:
    """Which plugin an option is of."""
    home = KEY if provider.folder else provider.distribution
    return "" if provider.own else f" [{plain(home)}]"
