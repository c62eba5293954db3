"""What is known from all answers together: who answered, how far raters agree, which runs are preferred."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from feedtune.feedback.asking.choosing import questions
from feedtune.feedback.records import Answer, Item, Kind, RaterKind
from feedtune.feedback.results.agreement import Agreement, agreement, agreement_between
from feedtune.feedback.results.leaderboard import Place, leaderboard
from feedtune.feedback.storage.store import FeedbackStore, Rater

MEASURED: tuple[Kind, ...] = ("comparison", "rating")
"""Kinds of answers that can agree."""


@dataclass(frozen=True)
class Progress:
    """How much of one kind is done."""

    questions: int  # that can be asked
    answered: int  # of them, by anybody
    answers: int


@dataclass(frozen=True)
class Results:
    """Everything that the second page shows."""

    items: int
    progress: dict[Kind, Progress]
    raters: list[Rater]
    agreement: dict[str, dict[Kind, Agreement]]  # among all raters, and between two kinds of them
    leaderboards: dict[RaterKind, list[Place]]  # of each kind of raters that has compared runs
    shown_first: float  # share of decided comparisons that preferred the response shown first; NaN: none

    def as_json(self) -> dict[str, Any]:
        """Plain values; null where there is no number."""
        plain: dict[str, Any] = _plain(asdict(self))
        plain["raters"] = [one._asdict() for one in self.raters]
        return plain


def results_of(store: FeedbackStore) -> Results:
    """What a store's answers amount to."""
    answers, items = store.answers(), store.items()  # in this order: others may be adding both meanwhile
    boards = {by: leaderboard([one for one in answers if one.by == by], items) for by in get_args(RaterKind)}
    return Results(
        items=len(items),
        progress={kind: _progress(items, answers, kind) for kind in get_args(Kind)},
        raters=store.raters(),
        agreement=_agreements(answers),
        leaderboards={by: board for by, board in boards.items() if board},
        shown_first=_shown_first(answers),
    )


def _progress(items: Sequence[Item], answers: Sequence[Answer], kind: Kind) -> Progress:
    of_kind = [one for one in answers if one.kind == kind]
    done = {(one.item, tuple(sorted(one.responses))) for one in of_kind}
    return Progress(len(questions(items, kind)), len(done), len(of_kind))


def _agreements(answers: Sequence[Answer]) -> dict[str, dict[Kind, Agreement]]:
    present = [by for by in get_args(RaterKind) if any(one.by == by for one in answers)]
    found = {"all raters": {kind: agreement(answers, kind) for kind in MEASURED}}
    for n, first in enumerate(present):
        for second in present[n + 1 :]:
            found[f"{first} and {second}"] = {
                kind: agreement_between(answers, kind, first, second) for kind in MEASURED
            }
    return found


def _shown_first(answers: Sequence[Answer]) -> float:
    chosen = Counter(one.value for one in answers if one.kind == "comparison")
    decided = chosen["a"] + chosen["b"]
    return chosen["a"] / decided if decided else math.nan


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
