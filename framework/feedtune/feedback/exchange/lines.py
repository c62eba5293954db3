"""JSON lines: one object a line, of files that people and other programs have written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from feedtune.durable import replace_file
from feedtune.errors import UserError
from feedtune.json_lines import Line, objects_in

SQLITE = b"SQLite format 3\x00"
"""How a file begins that is none of lines."""


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
    yield from objects_in(content, path)


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
