"""Rewards that compare a response with the row's own references."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from feedtune.contracts import Sample
from feedtune.errors import UserError, nearest


def column_texts(sample: Sample, row: int, column: str) -> list[str]:
    """The texts in a row's column, without blank ones; none at all means that the row has no opinion.

    Args:
        sample: the row; its column holds a text, a list of texts, or nothing (None, NaN or blank).
        row: the row's number in its batch, for error messages.
        column: the column's name.

    Raises:
        UserError: the row lacks the column, or holds something else than text there.

    >>> column_texts(Sample("Capital?", "Paris.", columns={"reference": ["Paris", ""]}), 0, "reference")
    ['Paris']
    """
    if column not in sample.columns:
        known = ", ".join(map(str, sample.columns)) or "none"
        hint = nearest(column, map(str, sample.columns))
        raise UserError(
            f"reward.column: row {row} (prompt {shorten(sample.prompt)}) has no column '{column}'; "
            f"its columns are: {known}.{hint}"
        )
    value = sample.columns[column]
    if value is None or (
        isinstance(value, float) and math.isnan(value)
    ):  # tables write a missing cell as NaN
        return []
    texts = [value] if isinstance(value, str) else as_list(value)
    if texts is None or not all(isinstance(text, str) for text in texts):
        raise UserError(
            f"reward.column: row {row} (prompt {shorten(sample.prompt)}): column '{column}' should hold text "
            f"or a list of texts, got {type(value).__name__} {shorten(value)}"
        )
    return [text for text in texts if text.strip()]


def as_list(value: Any) -> list[Any] | None:
    """A list, tuple or array as a list; None for anything else."""
    if hasattr(value, "tolist"):  # numpy, as parquet's list columns arrive
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else None


def shorten(value: Any, width: int = 40) -> str:
    """A value as an error message shows it.

    >>> shorten("the cat sat on the mat", 10)
    "'the cat...'"
    """
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= width else text[: width - 3] + "..."
    return repr(cut) if isinstance(value, str) else cut


@dataclass(kw_only=True)
class ReferenceReward(ABC):
    """Score each response against the best of its row's references; NaN where the row has none.

    Args:
        column: the column with the references: a text or a list of texts.
    """

    column: str = "reference"

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples."""
        references = [column_texts(sample, row, self.column) for row, sample in enumerate(samples)]
        scores = [
            self.score(sample.response, texts) if texts else math.nan
            for sample, texts in zip(samples, references, strict=True)
        ]
        return torch.tensor(scores, dtype=torch.float32)

    @abstractmethod
    def score(self, response: str, references: Sequence[str]) -> float:
        """The score of one response; there is at least one reference and none is blank."""
