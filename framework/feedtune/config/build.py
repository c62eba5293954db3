"""From a composed config to objects; errors name the key."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from feedtune.config.compose import FLAGS, MISSING, to_plain
from feedtune.config.trust import resolve
from feedtune.errors import UserError, one_line

ALIASES = {"lr": "learning rate", "eps": "epsilon", "betas": "beta parameter"}
"""What torch's optimisers call their arguments."""


def build(config: Any, key: str, **given: Any) -> Any:
    """The object that a config node describes.

    Args:
        config: the node.
        key: its full name in the config, for messages.
        given: arguments that only exist at run time; the target gets those that it names.

    Nodes with `_partial_: true` give a function that calls their target later. An empty node gives None.
    What is called is what `resolve` has let through: nothing is looked up again.

    Raises:
        UserError: an untrusted target, or a constructor that refuses its arguments.
    """
    plain = to_plain(config)
    if not plain:
        return None
    if not (isinstance(plain, dict) and "_target_" in plain):
        raise UserError(f"{key}: expected a mapping with a _target_, got {plain!r}")
    return _made(plain, key, given)


def _made(node: Any, key: str, given: Mapping[str, Any] | None = None) -> Any:
    """A plain node with every `_target_` in it called, innermost first."""
    if isinstance(node, list):
        return [_made(value, f"{key}[{index}]") for index, value in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if "_target_" not in node:
        return {name: _made(value, f"{key}.{name}") for name, value in node.items()}
    target = resolve(node["_target_"], f"{key}._target_")
    arguments = {name: value for name, value in node.items() if name not in FLAGS and value != MISSING}
    if node.get("_recursive_", True):
        arguments = {name: _made(value, f"{key}.{name}") for name, value in arguments.items()}
    call = partial(_called, target, key, **arguments)
    return call if node.get("_partial_", False) else call(**_named(target, given or {}))


def _named(target: Callable[..., Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments that a target has a name for: a collector that scores nothing need not take a reward."""
    parameters = inspect.signature(target).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return given
    return {name: value for name, value in given.items() if name in parameters}


def _called(target: Callable[..., Any], key: str, /, *args: Any, **arguments: Any) -> Any:
    """Call a target; what it says about its arguments names the key."""
    parameters = inspect.signature(target).parameters.values()
    for parameter in list(parameters)[len(args) :]:
        named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if named and parameter.default is parameter.empty and parameter.name not in arguments:
            raise UserError(f"{key}.{parameter.name}: not given, and it has no default")
    try:
        return target(*args, **arguments)
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        said = one_line(error)
        raise UserError(f"{_key_in(said, key, arguments)}: {said}") from error


def _key_in(said: str, key: str, arguments: Mapping[str, Any]) -> str:
    """The full key that a message is about, where it has the name and the value of one argument alone."""
    named = [
        name
        for name, value in arguments.items()
        if re.search(rf"\b({ALIASES.get(name, name)}|{name})\b", said) and _mentions(said, value)
    ]
    return f"{key}.{named[0]}" if len(named) == 1 else key


def _mentions(said: str, value: Any) -> bool:
    """Whether a message shows a value, or one of a list."""
    if isinstance(value, list | tuple):
        return any(_mentions(said, one) for one in value)
    return bool(re.search(rf"(?<![\w.-]){re.escape(str(value))}(?![\w]|\.\d)", said))
