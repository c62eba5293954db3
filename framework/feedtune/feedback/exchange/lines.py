"""JSON lines: one object a line, of files that people and other programs have written."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from feedtune.durable import replace_file
from feedtune.errors import UserError

SQLITE = b"SQLite format 3\x00"
"""How a file begins that is none of lines."""


class Line(NamedTuple):
    """An object and where it stands, as in "ratings.jsonl:3"."""

    where: str
    row: dict[str, Any]


def read_lines(path: str | Path) -> Iterator[Line]:
    """The objects of a file in UTF-8; blank lines are passed over.

    Raises:
        UserError: it cannot be read, or a line of it is no JSON object; naming the line.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if content.startswith(SQLITE):
        raise UserError(
            f"{path}: expected JSON lines, got an SQLite file; if it is a feedback store, leave it out "
            f"and say feedback.path={path}"
        )
    # Only newlines end a line: texts in JSON may hold other separators, such as U+2028, as they are.
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if line.strip():
            yield Line(f"{path}:{number}", _object(line, f"{path}:{number}"))


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a file in one stroke; returns how many rows it has. Half a letter is written as its escape.

    Raises:
        UserError: it cannot be written; what was there before still is.
    """
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be made: {error.strerror}") from error
    replace_file(path, "".join(lines))
    return len(lines)


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: not UTF-8 (byte 0x{line[error.start]:02x}); save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    except (RecursionError, ValueError) as error:  # nested too deep; a number of more than 4,300 digits
        raise UserError(f"{where}: its JSON cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object, got {type(value).__name__}")
    return value
