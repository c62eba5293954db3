"""How good a ranking is against known relevance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from feedtune.contracts import Sample
from feedtune.errors import UserError, nearest
from feedtune.feedback.events.rankings import entries_of, first_places
from feedtune.functional import ndcg
from feedtune_plugins.rewards.checks import at_least


@dataclass(kw_only=True)
class NDCG:
    """Normalised discounted cumulative gain: 1 for the best order of all documents, 0 without a relevant one.

    An entry gains 2^grade - 1 (Burges et al. 2005), discounted by 1 / log2(1 + place). A document without a
    grade, an entry that is no document and a repetition gain nothing.

    Args:
        column: with each document's grade, as {music: 2, food: 0}. NaN where none is above 0.
        at: how many places count; null: all.
        separator: between the entries of a ranking, such as "\\n"; null: whitespace.

    Raises:
        UserError: a row lacks the column, or holds something else there.

    >>> graded = {"relevance": {"music": 2, "food": 0}}
    >>> score = NDCG()([Sample("Songs?", said, columns=graded) for said in ("music food", "food music")])
    >>> score  # place 2 counts 0.63
    tensor([1.0000, 0.6309])
    """

    column: str = "relevance"
    at: int | None = None
    separator: str | None = None

    def __post_init__(self) -> None:
        if self.at is not None:
            at_least("reward.at", self.at, 1)

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples."""
        return torch.tensor([self._score(one) for one in samples], dtype=torch.float32)

    def _score(self, sample: Sample) -> float:
        gains = {entry: 2**grade - 1 for entry, grade in self._grades(sample).items()}
        if not any(gains.values()):
            return math.nan
        places = first_places(entries_of(sample.response, self.separator))
        depth = max(len(gains), *places.values()) if places else len(gains)
        worth = torch.zeros(depth, dtype=torch.float64)
        for entry, place in places.items():
            worth[place - 1] = gains.get(entry, 0.0)
        ideal = torch.zeros(depth, dtype=torch.float64)
        ideal[: len(gains)] = torch.tensor(sorted(gains.values(), reverse=True), dtype=torch.float64)
        return float(ndcg(worth[: self.at], ideal[: self.at]))

    def _grades(self, sample: Sample) -> Mapping[str, float]:
        if self.column not in sample.columns:
            known = ", ".join(map(str, sample.columns)) or "none"
            hint = nearest(self.column, map(str, sample.columns))
            raise UserError(f"reward.column: a row has no column '{self.column}'; it has: {known}.{hint}")
        found = sample.columns[self.column]
        if found is None:
            return {}
        if not (isinstance(found, Mapping) and all(_is_grade(grade) for grade in found.values())):
            raise UserError(
                f"reward.column: column '{self.column}' should hold each document's grade, a number from 0, "
                f"as {{music: 2, food: 0}}; got {str(found)[:60]!r}"
            )
        return found


def _is_grade(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value < 64  # 2^grade is a number that floats can say
