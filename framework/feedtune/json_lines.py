"""JSON lines: one object a line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from feedtune.errors import UserError

DEEPEST = 100
"""Lists and objects in one another, which is far from where Python stops reading or writing them."""


class Line(NamedTuple):
    """An object and where it stands, as in "ratings.jsonl:3"."""

    where: str
    row: dict[str, Any]


def objects_in(content: bytes, name: object) -> Iterator[Line]:
    """The objects of a file in UTF-8; blank lines are passed over.

    Args:
        content: of the file.
        name: of the file, for messages.

    Raises:
        UserError: a line is no JSON object; naming the line.

    >>> list(objects_in(b'{"prompt": "Hi"}\\n', "rows.jsonl"))
    [Line(where='rows.jsonl:1', row={'prompt': 'Hi'})]
    """
    # Only newlines end a line: texts in JSON may hold other separators, such as U+2028, as they are.
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if line.strip():
            yield Line(f"{name}:{number}", _object(line, f"{name}:{number}"))


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: not UTF-8 (byte 0x{line[error.start]:02x}); save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at column {error.colno}"
        hint = "; one object a line is expected, not a list over several" if line.strip() == b"[" else ""
        raise UserError(f"{where}: not JSON: {reason}{hint}") from error
    except RecursionError as error:
        raise UserError(f"{where}: its JSON is nested too deep") from error
    except ValueError as error:  # Python reads no number of more than 4,300 digits
        raise UserError(f"{where}: a number with too many digits") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, got {_kind(value)}")
    if line.count(b"[") + line.count(b"{") > DEEPEST and _depth(value) > DEEPEST:
        raise UserError(f"{where}: its JSON is nested too deep")
    return value


def _depth(value: Any) -> int:
    """How many lists and objects lie in one another, found without recursion."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, list | dict)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "a truth value"}
    return names.get(type(value), "null")
