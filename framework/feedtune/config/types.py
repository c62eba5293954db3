"""Whether a plain config value can be meant for a parameter of some type, and how to say that it cannot."""

from __future__ import annotations

import collections.abc
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from feedtune.errors import nearest

ALIASES = {"nan": "nonfinite", "inf": "nonfinite"}
"""What a choice may be taken for, although the words are not alike: as YAML has it, these are numbers."""

NAMES = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
    Path: "a path",
    list: "a list",
    tuple: "a list",
    collections.abc.Sequence: "a list",
    dict: "a mapping",
    collections.abc.Mapping: "a mapping",
}
"""How types read in a message."""


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain config value can be meant for a parameter of this type.

    >>> fits("abc", float), fits(1, float), fits(True, int), fits(None, int | None), fits([1, "a"], list[int])
    (False, True, False, True, False)
    """
    if annotation is Any or (isinstance(value, dict) and "_target_" in value):
        return True
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in get_args(annotation))
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(annotation))
    expected = origin or annotation
    if not isinstance(expected, type):
        return True
    return _is_a(value, expected) and _entries_fit(value, get_args(annotation))


def _is_a(value: Any, expected: type) -> bool:
    if expected is NoneType or value is None:
        return expected is NoneType and value is None
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if issubclass(expected, str | bool):
        return isinstance(value, expected)
    if isinstance(value, list):
        return _allows(expected, list) or issubclass(expected, tuple)
    if isinstance(value, dict):
        return _allows(expected, dict)
    return isinstance(value, str) and issubclass(expected, Path)


def _allows(expected: type, plain: type) -> bool:
    try:
        return issubclass(plain, expected)
    except TypeError:  # a protocol that cannot be asked
        return True


def _entries_fit(value: Any, entries: Sequence[Any]) -> bool:
    """Entries of a list or the values of a mapping; `entries` are the arguments of the container's type."""
    if isinstance(value, dict) and len(entries) == 2:
        return all(fits(one, entries[1]) for one in value.values())
    if not (isinstance(value, list) and entries):
        return True
    if len(entries) == 1 or entries[1] is Ellipsis:
        return all(fits(one, entries[0]) for one in value)
    return len(value) == len(entries) and all(map(fits, value, entries))


def fields_of(annotation: Any) -> Any:
    """The dataclass whose fields a mapping may give: `D | Mapping[str, Any]`. None: there is none."""
    if not fits({}, annotation) or get_origin(annotation) not in (Union, UnionType):
        return None
    return next((one for one in get_args(annotation) if isinstance(one, type) and is_dataclass(one)), None)


def wrong_type(key: str, value: Any, annotation: Any) -> str:
    """The message for a value that does not fit.

    >>> wrong_type("optimizer.lr", "abc", float)
    "optimizer.lr: expected a number, got 'abc'"
    """
    choices = _choices(annotation)
    if choices:
        word = str(value)
        hint = nearest(ALIASES.get(word, word), choices)
        return f"{key}: expected one of {', '.join(choices)}, got {value!r}.{hint}"
    hint = "; a mapping needs a _target_" if isinstance(value, dict) and not fits({}, annotation) else ""
    return f"{key}: expected {type_name(annotation)}, got {value!r}{hint or _quoting(key, value, annotation)}"


def _quoting(key: str, value: Any, annotation: Any) -> str:
    """How to say that text is meant, where only that would fit.

    >>> print(_quoting("reward.words", [1, "a"], list[str]))
    ; if text is meant, quote it: 'reward.words=["1", "a"]'
    """
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float) for one in entries):
        return ""
    texts = [str(one).lower() if isinstance(one, bool) else str(one) for one in entries]
    if isinstance(value, str) or not fits(texts if isinstance(value, list) else texts[0], annotation):
        return ""
    quoted = ", ".join(f'"{one}"' for one in texts)
    return f"; if text is meant, quote it: '{key}={f'[{quoted}]' if isinstance(value, list) else quoted}'"


def _choices(annotation: Any) -> list[str]:
    """What a type made of Literals allows, as it is typed; empty where other types are allowed too."""
    if annotation is NoneType:
        return ["null"]
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    if get_origin(annotation) not in (Union, UnionType):
        return []
    parts = [_choices(one) for one in get_args(annotation)]
    return list(dict.fromkeys(choice for part in parts for choice in part)) if all(parts) else []


def type_name(annotation: Any) -> str:
    """How a type reads in a message.

    >>> type_name(float | None), type_name(list[str])
    ('a number or null', 'a list, each entry text')
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        plain = [one for one in inner if one in NAMES or get_origin(one)]
        # Types that cannot be typed, such as Tensor beside float, are left out where others can.
        named = inner if set(plain) <= {NoneType} else plain
        wide = [one for one in named if not (one is int and float in named)]
        return " or ".join(dict.fromkeys(type_name(one) for one in wide))
    expected = origin or annotation
    name = NAMES.get(expected, str(getattr(expected, "__name__", expected)))
    if name == "a mapping" and inner:
        return name if inner[1] is Any else f"{name}, each value {type_name(inner[1])}"
    if name == "a list" and inner:
        several = f" of {len(inner)}" if expected is tuple and inner[-1] is not Ellipsis else ""
        return f"{name}{several}, each entry {type_name(inner[0])}"
    return name
