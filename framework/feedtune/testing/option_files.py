"""Laws of an option's YAML: it says how it is used, what each key means, and nothing that nobody reads."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from inspect import Parameter
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from feedtune.config.compose import FLAGS, MISSING, targets_in
from feedtune.config.trust import resolve
from feedtune.config.types import fields_of, fits, wrong_type
from feedtune.errors import nearest
from feedtune.testing.suite import require
from feedtune.testing.turning import argument_types

UNSEEN = "[unseen]"
"""How the comment of a key ends that rightly changes nothing that laws look at."""

UNSAID = (*FLAGS, "defaults")
"""Keys that need no comment: they are Hydra's."""


def opens_with_a_command(file: Path, group: str, option: str) -> None:
    """The file begins with a comment that names the command or the choice that uses it."""
    lines = file.read_text(encoding="utf-8").splitlines()
    header = []
    for line in lines:
        if not line.startswith("#"):
            break
        header.append(line)
    wanted = f"{group}={option}"
    require(
        any(wanted in line or re.search(r"\bfeedtune [a-z]", line) for line in header),
        f"{file.name} does not open with a comment that says how it is used, such as '# feedtune train "
        f"{wanted}'",
    )


def every_key_has_a_comment(file: Path) -> None:
    """Behind the value, or in the line above the key."""
    bare = [key for key, comment in comments(file) if not comment]
    require(
        not bare,
        f"{file.name}: no comment says what {', '.join(bare)} means, behind the value or above the key",
    )


def unseen_keys(file: Path) -> frozenset[str]:
    """Keys whose comment ends with `[unseen]`."""
    return frozenset(key for key, comment in comments(file) if comment.rstrip().endswith(UNSEEN))


def comments(file: Path) -> Iterator[tuple[str, str]]:
    """Each key that holds a value, such as `advantage.gamma`, with its comment; "": it has none."""
    text = file.read_text(encoding="utf-8")
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(node, yaml.MappingNode):
        yield from _comments(node, text.splitlines(), "")


def _comments(node: Any, lines: list[str], parent: str) -> Iterator[tuple[str, str]]:
    for key, value in node.value:
        name = f"{parent}{key.value}"
        if key.value in UNSAID:
            continue
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _comments(value, lines, f"{name}.")
        else:
            yield name, _comment_of(key, value, lines)


def _comment_of(key: Any, value: Any, lines: list[str]) -> str:
    """What stands behind a value, and the lines of comment that go on below; or what stands above its key."""
    end = _last_of(value).end_mark
    places = [(key.end_mark.line, key.end_mark.column + 1), (end.line, end.column)]
    behind = [lines[line][column:].strip() for line, column in places if line < len(lines)]
    found = [text.removeprefix("#").strip() for text in behind if text.startswith("#")][-1:]
    above = key.start_mark.line - 1
    if not found:
        while above >= 0 and lines[above].strip().startswith("#"):
            found.insert(0, lines[above].strip().lstrip("# "))
            above -= 1
        return "" if above < 0 else " ".join(found)  # a header speaks of the whole file
    for line in lines[end.line + 1 :]:
        if not line.startswith(" ") or not line.strip().startswith("#"):
            break
        found.append(line.strip().lstrip("# "))
    return " ".join(found)


def _last_of(node: Any) -> Any:
    """The last entry of a list that is written line by line: to YAML it ends where the next key begins."""
    block = isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value
    return _last_of(node.value[-1]) if block else node


def targets_can_be_imported(config: Mapping[str, Any], key: str) -> None:
    """Every `_target_` is trusted, and there is such a class."""
    require("_target_" in config, f"{key} has no _target_: which class it is made from is not said")
    for where, node in targets_in(dict(config), key):
        resolve(node["_target_"], f"{where}._target_")


def keys_are_arguments(config: Mapping[str, Any], key: str) -> None:
    """Every key is an argument of its `_target_`, and its value is of the argument's type."""
    problems = [
        problem for where, node in targets_in(dict(config), key) for problem in _problems(where, node)
    ]
    require(not problems, "; ".join(problems))


def _problems(key: str, node: Mapping[str, Any]) -> Iterator[str]:
    target = resolve(node["_target_"], f"{key}._target_")
    parameters = inspect.signature(target).parameters
    hints = argument_types(target)
    if any(one.kind is Parameter.VAR_KEYWORD for one in parameters.values()):
        return
    for name, value in node.items():
        if name in FLAGS:
            continue
        if name not in parameters:
            where = getattr(target, "__name__", str(target))
            yield f"{key}.{name} is no argument of {where}.{nearest(str(name), parameters)}"
        elif name in hints and value != MISSING and not _fits(value, hints[name]):
            yield wrong_type(f"{key}.{name}", value, hints[name])


def _fits(value: Any, hint: Any) -> bool:
    given_as_fields = fields_of(hint) is not None and isinstance(value, dict)
    return given_as_fields or fits(value, hint)


def values_are_given(config: Mapping[str, Any], group: str, option: str) -> None:
    """Nothing is left at `???`."""
    lacking = list(_not_given(config, group))
    more = " ".join(f"{name}=..." for name in lacking)
    require(not lacking, f"{', '.join(lacking)} has to be given: feedtune check {group}={option} {more}")


def _not_given(node: Any, key: str) -> Iterator[str]:
    if isinstance(node, str) and node == MISSING:
        yield key
    elif isinstance(node, Mapping):
        for name, value in node.items():
            yield from _not_given(value, f"{key}.{name}")
