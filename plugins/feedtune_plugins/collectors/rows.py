"""Rows that are already there, encoded: what the collectors that read them share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from feedtune.contracts import Row, Sample
from feedtune.errors import UserError, nearest

TooLong = Literal["truncate", "drop", "refuse"]


class Logged(NamedTuple):
    """One row, encoded."""

    tokens: Sequence[int]
    action: Sequence[bool]
    reward: float = 0.0  # what the row's column says; NaN: nothing
    sample: Sample | None = None  # what a reward source is shown, where one is asked


def fitted(row: Logged, limit: int | None, too_long: TooLong, where: str) -> Logged | None:
    """The row as it fits a context of `limit` tokens: whole, cut, or None where it is to be dropped.

    Raises:
        UserError: beginning with `where`; the row is too long and is to be refused.

    >>> fitted(Logged([5, 6, 7], [False, True, True]), 2, "truncate", "row 1").tokens
    [5, 6]
    """
    if limit is None or len(row.tokens) <= limit:
        return row
    if too_long == "refuse":
        count = len(row.tokens)
        raise UserError(
            f"{where}: its {count} tokens do not fit the context of {limit}, and collector.too_long=refuse"
        )
    if too_long == "drop":
        return None
    return row._replace(tokens=row.tokens[:limit], action=row.action[:limit])


def number_in(row: Row, column: str, where: str) -> float:
    """The number in a row's column, NaN for null; text that spells a number is one (CSV knows no other).

    Raises:
        UserError: beginning with `where`; there is no such column, or no finite number in it.

    >>> number_in({"reward": 0.5}, "reward", "row 1"), number_in({"reward": "2"}, "reward", "row 2")
    (0.5, 2.0)
    """
    if column not in row:
        found = ", ".join(f"'{name}'" for name in row) or "none"
        raise UserError(f"{where}: no column '{column}', found {found}.{nearest(column, map(str, row))}")
    value: Any = row[column]
    if value is None:
        return math.nan
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: '{column}' must be a finite number or null, got {value!r}")
    return number
