"""JSON lines: one object a line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feedtune.errors import UserError
from feedtune_plugins.tasks.sources import FileTask, Located

DEEPEST = 100
"""Lists and objects in one another, which is far from where Python stops reading or writing them."""


class Jsonl(FileTask):
    """Rows from JSON lines; blank lines are skipped. The options are those of `FileTask`."""

    suffixes = (".jsonl", ".ndjson")

    def read_file(self, file: Path) -> Iterator[Located]:
        for number, line in enumerate(file.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
            if line.strip():
                where = f"{file}:{number}"
                yield Located(where, _object(line, where))


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
