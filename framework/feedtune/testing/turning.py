"""No parameter without effect: each key of an option's YAML is turned alone, and something has to change.

What a key is turned to follows from its type: a truth value is flipped, a number is moved, halved, doubled
and set to 0 and 1, a Literal takes each other choice, a text is changed, a list loses an entry. Of the values
that are not refused by a UserError one has to change what the plugin does; where all are refused, the key is
read. Nodes of their own (`_target_`) are entered. What is null and takes no plain value is left alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from feedtune.config.compose import FLAGS, MISSING
from feedtune.config.trust import resolve
from feedtune.config.types import fields_of
from feedtune.errors import UserError
from feedtune.testing.sameness import alike

Path = tuple[str, ...]

ROUNDING = 1e-5
"""Differences up to this are none: another order of adding is not another outcome."""


def idle_keys(
    config: Mapping[str, Any],
    build: Callable[[Mapping[str, Any]], Any],
    probe: Callable[[Any], Any],
    unseen: frozenset[str] = frozenset(),
) -> list[str]:
    """Keys whose turning changes nothing, as `key` or `part.key`.

    Args:
        config: the composed node of an option, plain values.
        build: the plugin from such a node.
        probe: what can be seen of the plugin; see `Suite.probe`.
        unseen: keys that may change nothing.

    Raises:
        AssertionError: two plugins of the same config differ, so that no change means anything.
    """
    first = _seen(config, build, probe)
    if not alike(_seen(config, build, probe), first):
        raise AssertionError("made twice from the same config, it does different things: nothing to compare")
    idle = []
    for path, hint in turnable(config):
        name = ".".join(path)
        if name in unseen or path[-1] in unseen:
            continue
        others = turned_values(value_at(config, path), hint)
        if _is_idle(first, (_seen(with_value(config, path, other), build, probe) for other in others)):
            idle.append(name)
    return idle


def _is_idle(first: Any, others: Iterator[Any]) -> bool:
    """Whether some value was taken and none of those taken made a difference that is more than rounding."""
    taken = False
    for seen in others:
        same = alike(seen, first, ROUNDING)
        if not same and not isinstance(seen, Refusal):
            return False
        taken = taken or same
    return taken


@dataclass(frozen=True)
class Refusal:
    """What a config comes to that a UserError refuses."""

    message: str


def _seen(
    config: Mapping[str, Any], build: Callable[[Mapping[str, Any]], Any], probe: Callable[[Any], Any]
) -> Any:
    """What a config comes to: what the probe sees, or a refusal."""
    try:
        return probe(build(config))
    except UserError as error:
        return Refusal(str(error))


def turnable(config: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Every key that can be turned, with the type that its constructor gives it.

    >>> from feedtune.contracts import Plan  # whichever class has arguments
    >>> node = {"_target_": "feedtune.contracts.Plan", "collections": 1, "items": 2, "rows": 3}
    >>> [path for path, hint in turnable(node)]
    [('collections',), ('items',), ('rows',)]
    """
    hints = argument_types(resolve(config["_target_"], "_target_")) if "_target_" in config else {}
    yield from _turnable(config, hints, ())


def _turnable(node: Mapping[str, Any], hints: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    for name, value in node.items():
        if name in FLAGS or value == MISSING:
            continue
        here, hint = (*path, str(name)), hints.get(name, Any)
        if not isinstance(value, Mapping):
            yield here, hint
        elif "_target_" in value:
            yield from _turnable(value, argument_types(resolve(value["_target_"], ".".join(here))), here)
        else:
            yield from _turnable(value, _entry_types(value, hint), here)


def argument_types(target: Any) -> dict[str, Any]:
    """Annotations of a constructor's or function's arguments; none where they cannot be read.

    >>> argument_types(lambda: None)
    {}
    """
    function = target.__init__ if inspect.isclass(target) and not is_dataclass(target) else target
    try:
        return get_type_hints(inspect.unwrap(function))
    except (NameError, TypeError, AttributeError):
        return {}


def _entry_types(value: Mapping[str, Any], hint: Any) -> dict[str, Any]:
    """Types of a plain mapping's values: of the dataclass that it may stand for, or the mapping's own."""
    if kind := fields_of(hint):
        return argument_types(kind)
    for one in alternatives(hint):
        if len(get_args(one)) == 2:
            return dict.fromkeys(map(str, value), get_args(one)[1])
    return {}


def alternatives(hint: Any) -> tuple[Any, ...]:
    """What a union allows, or the type itself.

    >>> alternatives(int | None)
    (<class 'int'>, <class 'NoneType'>)
    """
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def turned_values(value: Any, hint: Any) -> Iterator[Any]:
    """Other values that a key may take.

    >>> list(turned_values("a", Literal["a", "b"])), list(turned_values(True, bool))
    (['b'], [False])
    >>> list(turned_values(None, int | None)), list(turned_values(None, str | None))
    ([1, 2, 0], ['other'])
    """
    kinds = alternatives(hint)
    choices = [choice for one in kinds if get_origin(one) is Literal for choice in get_args(one)]
    if choices:
        others: list[Any] = choices
    elif isinstance(value, bool):
        others = [not value]
    elif isinstance(value, int | float):
        whole = isinstance(value, int) and float not in kinds
        moved = [value * 2, value + 1, value / 2, 1, 0, 0.5, value * 10]
        others = [int(one) for one in moved if one == int(one)] if whole else [float(one) for one in moved]
    elif isinstance(value, str):
        others = [f"{value}x"]
    elif isinstance(value, Sequence):
        others = [value[1:]] if len(value) else []
    else:
        others = _from_nothing(kinds)
    told = []
    for one in others:
        if one != value and one not in told:
            told.append(one)
            yield one


def _from_nothing(kinds: Sequence[Any]) -> list[Any]:
    """Values for a key that is null, by what else it may be."""
    plain: dict[type, list[Any]] = {
        bool: [True],
        float: [0.5, 2.0, 0.1, 1.001, 0.0],
        int: [1, 2, 0],
        str: ["other"],
    }
    for kind, values in plain.items():
        if kind in kinds:
            return values
    return []


def value_at(config: Mapping[str, Any], path: Path) -> Any:
    """What stands at a key.

    >>> value_at({"a": {"b": 1}}, ("a", "b"))
    1
    """
    node: Any = config
    for name in path:
        node = node[name]
    return node


def with_value(config: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """A copy of the config with another value at a key.

    >>> with_value({"a": {"b": 1}, "c": 2}, ("a", "b"), 5)
    {'a': {'b': 5}, 'c': 2}
    """
    name, *rest = path
    return {**config, name: with_value(config[name], tuple(rest), value) if rest else value}
