"""Every value of a composed config against the signature of what it configures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter
from typing import Any, get_type_hints

from omegaconf import DictConfig

from feedtune.config.compose import FLAGS, MISSING, targets_in, to_plain
from feedtune.config.trust import resolve
from feedtune.config.types import fields_of, fits, wrong_type
from feedtune.errors import UserError, nearest


def check(config: DictConfig, schema: Mapping[str, Any], groups: Sequence[str]) -> None:
    """Check every value of a composed config against the signature of what it configures.

    Args:
        config: as composed.
        schema: types of the top-level values that configure no target.
        groups: the other top-level keys.

    Raises:
        UserError: with every problem, one a line.
    """
    plain = to_plain(config)
    known = [*schema, *groups]
    problems = [f"{name}: there is no such key.{nearest(name, known)}" for name in plain if name not in known]
    lacking = [name for name in known if name not in plain]
    problems += [f"the config lacks {', '.join(lacking)}"] if lacking else []
    problems += [f"{key}: not given; add {key}=... to the command" for key in _not_given(plain, "")]
    for name, annotation in schema.items():
        if name in plain:
            problems += _value_problems(plain[name], annotation, name)
    for key, node in targets_in(plain):
        try:
            target = resolve(node["_target_"], f"{key}._target_")
        except UserError as error:
            problems.append(str(error))
        else:
            problems += _signature_problems(target, node, key)
    if problems:
        raise UserError("\n".join(problems))


def _signature_problems(target: Callable[..., Any], node: Mapping[str, Any], key: str) -> list[str]:
    parameters = inspect.signature(target).parameters
    hints = _hints(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    problems = []
    for name, value in node.items():
        if name in FLAGS:
            continue
        if name not in parameters:
            if not open_ended:
                known = [p for p in parameters if p in node or parameters[p].default is not Parameter.empty]
                hint = nearest(str(name), known)
                problems.append(f"{key}.{name}: unknown key.{hint} It has: {', '.join(known)}")
        elif name in hints:
            problems += _value_problems(value, hints[name], f"{key}.{name}")
    return problems


def _value_problems(value: Any, annotation: Any, key: str) -> list[str]:
    """What is wrong with a value of this type."""
    if value == MISSING:
        return []  # said elsewhere
    fields = fields_of(annotation)
    if fields is not None and isinstance(value, dict) and "_target_" not in value:
        return _signature_problems(fields, value, key)
    return [] if fits(value, annotation) else [wrong_type(key, value, annotation)]


def _not_given(node: Any, key: str) -> Iterator[str]:
    """Full keys of the values that have to be given and are not."""
    if node == MISSING:
        yield key
    elif isinstance(node, dict):
        for name, value in node.items():
            yield from _not_given(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _not_given(value, f"{key}[{index}]")


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a constructor or function; none where they name what cannot be imported."""
    function: Any = target
    if inspect.isclass(target) and not hasattr(target, "__dataclass_fields__"):
        function = target.__init__
    try:
        return get_type_hints(inspect.unwrap(function))
    except (NameError, TypeError, AttributeError):
        return {}
