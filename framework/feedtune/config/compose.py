"""From overrides to a composed config, and from that to plain values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from feedtune.config.hydra_errors import explained
from feedtune.config.hydra_setup import composed
from feedtune.config.local_plugins import adopted
from feedtune.config.plugin_problems import refuse_choices
from feedtune.errors import UserError

FLAGS = ("_target_", "_partial_", "_convert_", "_recursive_")
"""Keys of a node that are about its construction. Values are always plain, so `_convert_` changes nothing."""

MISSING = "???"
"""OmegaConf's sign for a value that has to be given."""


def compose_config(
    overrides: Sequence[str] = (), config_name: str = "train", with_hydra: bool = False
) -> DictConfig:
    """The config that `feedtune train [overrides]` would run; `with_hydra`: with Hydra's own section.

    Raises:
        UserError: an unknown group, option or key, bad override syntax, or an option of a broken plugin.
    """
    with adopted(overrides) as absolute, explained(absolute, config_name):
        config = composed(absolute, config_name)
        refuse_choices(config.hydra.runtime.choices)
    if not with_hydra:
        with open_dict(config):
            del config["hydra"]
    return config


def to_plain(config: Any) -> Any:
    """Plain dicts and lists, interpolations resolved."""
    if not OmegaConf.is_config(config):
        return config
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).splitlines()[0]
        raise UserError(f"{error.full_key}: {reason}") from error


def targets_in(node: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping with a `_target_` in plain values, with its full key, outermost first.

    >>> list(targets_in({"a": [{"_target_": "b.C"}]}))
    [('a[0]', {'_target_': 'b.C'})]
    """
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        for name, value in node.items():
            yield from targets_in(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from targets_in(value, f"{key}[{index}]")


def said_of_origin(config: DictConfig, message: str) -> str:
    """A message that begins with a key, about the key that this one takes its value from, if it does.

    >>> taken = OmegaConf.create({"backbone": {"name": "x"}, "tokenizer": {"name": "${backbone.name}"}})
    >>> said_of_origin(taken, "tokenizer.name: no folder 'x'")
    "backbone.name: no folder 'x'"
    >>> taken = OmegaConf.create({"collector": {"env": "x"}, "task": {"env": "${oc.select:collector.env,y}"}})
    >>> said_of_origin(taken, "task.env: cannot find 'x'")
    "collector.env: cannot find 'x'"
    """
    key, colon, rest = message.partition(":")
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if re.fullmatch(r"[\w.]+", parent) else None
    if not isinstance(node, DictConfig):
        return message
    raw = OmegaConf.to_container(node, resolve=False)
    value = raw.get(name) if isinstance(raw, dict) else None
    origin = re.fullmatch(r"\$\{(oc\.select:)?([\w.]+)(,.*)?\}", value) if isinstance(value, str) else None
    if origin is None or OmegaConf.select(config, origin[2]) is None:
        return message
    return f"{origin[2]}{colon}{rest}"
