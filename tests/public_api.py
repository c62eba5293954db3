"""The public API as docs/api.md lists it: `python tests/public_api.py` writes its signatures anew.

Whoever changes one of them on purpose runs this, says so in CHANGELOG.md, and keeps what was there for
another release (docs/api.md).
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LIST = ROOT / "docs" / "api.md"
SIGNATURES = Path(__file__).with_suffix(".txt")

HEADING = re.compile(r"## (feedtune[\w.]*)$")
LINE = re.compile(r"`(feedtune[\w.]*)`: (.*)")


def listed() -> list[tuple[str, str]]:
    """(module, name) of every name in docs/api.md: below a heading that is a module, or behind a module."""
    found: list[tuple[str, str]] = []
    module: str | None = None
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = HEADING.match(line)
            module = heading[1] if heading else None
        elif own := LINE.match(line):
            found += [(own[1], name) for name in re.findall(r"`(\w+)`", own[2])]
        elif module and line.startswith("`"):
            found += [(module, name) for name in re.findall(r"`(\w+)`", line)]
    return found


def thing(module: str, name: str) -> Any:
    """What a public name stands for."""
    return getattr(importlib.import_module(module), name)


def signatures() -> list[str]:
    """One line for each function, class and public member of a class, at the first place that lists it."""
    first: dict[int, str] = {}
    found: list[str] = []
    for module, name in listed():
        path, what = f"{module}.{name}", thing(module, name)
        known = first.setdefault(id(what), path)
        found += [*_lines(path, what)] if known == path else [f"{path} = {known}"]
    return found


def _lines(path: str, what: Any) -> Iterator[str]:
    if not (inspect.isclass(what) or inspect.isroutine(what)):
        yield f"{path}: {what!r}".replace("typing.", "")
        return
    yield f"{path}{_signature(what)}"
    if inspect.isclass(what):
        for name, member in sorted(vars(what).items()):
            if name.startswith(("_", "test_")):  # the laws of a suite are no names to call
                continue
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if inspect.isfunction(function):
                yield f"{path}.{name}{_signature(function)}"
            elif isinstance(member, property):
                yield f"{path}.{name}: {member.fget.__annotations__.get('return') if member.fget else None}"


def _signature(what: Any) -> str:
    try:
        return re.sub(r"<function (.*?) at 0x\w+>", r"<\1>", str(inspect.signature(what)))
    except ValueError:  # a class of C
        return "(...)"


if __name__ == "__main__":
    SIGNATURES.write_text("\n".join(signatures()) + "\n", encoding="utf-8")
