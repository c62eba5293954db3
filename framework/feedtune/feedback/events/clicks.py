"""Simulated users of a ranking, who look at places by their height and click on what they like."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from feedtune.checks import check_unit
from feedtune.errors import UserError
from feedtune.feedback.events.rankings import (
    Examination,
    check_examination,
    entries_of,
    examined,
    first_places,
)


@dataclass(frozen=True, kw_only=True)
class PositionBiased:
    """The position-biased model of clicks (Richardson et al. 2007; Craswell et al. 2008).

    The entry at place k is clicked with probability examination(k) x attraction(entry), each by itself, where
    attraction = noise + (1 - noise) (2^grade - 1) / (2^best - 1). So what a click says is right, but people
    say less about lower places: counting clicks alone prefers what has stood at the top.

    Args:
        examination: a number e: place k is looked at with probability k^-e (0: all alike); or a list.
        noise: probability that an entry of grade 0 is clicked when it is looked at, in [0, 1].
        best: the highest grade, which is always clicked when it is looked at; from 1.
        separator: between the entries of a ranking; None: whitespace.

    >>> users = PositionBiased(examination=1.0, noise=0.1, best=2)
    >>> [round(one, 3) for one in users.probabilities("food music", {"music": 2})]
    [0.1, 0.5]
    """

    examination: Examination = 1.0
    noise: float = 0.1
    best: int = 2
    separator: str | None = None

    def __post_init__(self) -> None:
        check_examination("clicks.examination", self.examination)
        check_unit("clicks.noise", self.noise)
        if self.best < 1:
            raise UserError(f"clicks.best: expected a grade from 1, got {self.best}")

    def attraction(self, grade: float) -> float:
        """The probability that an entry of this grade is clicked when it is looked at.

        Raises:
            UserError: the grade is not one from 0 to `best`.
        """
        if not 0 <= grade <= self.best:
            raise UserError(f"clicks.best: grades go from 0 to {self.best}, and a document has {grade}")
        return self.noise + (1 - self.noise) * (math.exp2(grade) - 1) / (math.exp2(self.best) - 1)

    def probabilities(self, ranking: str, relevance: Mapping[str, float]) -> list[float]:
        """The probability of a click on each place. No grade is grade 0; repetitions get no click."""
        entries = entries_of(ranking, self.separator)
        first = first_places(entries)
        return [
            examined("clicks.examination", self.examination, place) * self.attraction(relevance.get(entry, 0))
            if first[entry] == place
            else 0.0
            for place, entry in enumerate(entries, 1)
        ]

    def clicked(self, ranking: str, relevance: Mapping[str, float], generator: random.Random) -> list[int]:
        """The places, from 1, that one user clicks on."""
        chances: Sequence[float] = self.probabilities(ranking, relevance)
        return [place for place, chance in enumerate(chances, 1) if generator.random() < chance]


@dataclass(frozen=True, kw_only=True)
class ClickOptions:
    """The node `clicks` of conf/feedback.yaml: who is served, and how they click (`PositionBiased`)."""

    split: Literal["train", "eval"] = "train"  # whose prompts are asked
    showings: int | None = None  # how many responses are shown; None: one a prompt
    column: str = "relevance"  # with the grade of each document
    examination: float | list[float] = 1.0
    noise: float = 0.1
    best: int = 2
    separator: str | None = None

    def users(self) -> PositionBiased:
        """The model of those who click."""
        return PositionBiased(
            examination=self.examination, noise=self.noise, best=self.best, separator=self.separator
        )
