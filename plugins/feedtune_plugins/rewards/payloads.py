"""What a remote judge is shown of a sample."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from feedtune.contracts import Sample
from feedtune.errors import UserError, nearest
from feedtune.rewards import shortened

KEYS = ("prompt", "response", "messages")
"""Names that are taken: columns cannot have them."""

REFERENCE = "reference"


def payload_of(sample: Sample, row: int, columns: Sequence[str] | None) -> dict[str, Any]:
    """A sample as JSON says it.

    Args:
        sample: the row.
        row: its number in its batch, for error messages.
        columns: of the task, which the row must have; null: `reference`, if it has one.

    Raises:
        UserError: the row lacks a column, or holds there what JSON cannot say.

    >>> payload_of(Sample("2+2?", "4", columns={"reference": "4", "level": 1}), 0, None)
    {'prompt': '2+2?', 'response': '4', 'reference': '4'}
    """
    shown: dict[str, Any] = {"prompt": sample.prompt, "response": sample.response}
    if sample.messages:
        shown["messages"] = [dict(message) for message in sample.messages]
    for column in [REFERENCE] if columns is None else columns:
        if column in sample.columns:
            shown[column] = _as_json(sample.columns[column], column, sample, row)
        elif columns is not None:
            known = ", ".join(map(str, sample.columns)) or "none"
            raise UserError(
                f"reward.columns: row {row} (prompt {shortened(sample.prompt)}) has no column '{column}'; "
                f"its columns are: {known}.{nearest(column, map(str, sample.columns))}"
            )
    return shown


def _as_json(value: Any, column: str, sample: Sample, row: int) -> Any:
    """A plain value; tables write a missing cell as NaN, and lists as arrays."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, float) and math.isnan(plain):
        return None
    try:
        json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"reward.columns: row {row} (prompt {shortened(sample.prompt)}): JSON cannot say what column "
            f"'{column}' holds ({type(value).__name__}: {error})"
        ) from error
    return plain
