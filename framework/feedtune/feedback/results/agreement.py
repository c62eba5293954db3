"""How far raters agree: how often they say the same, and Krippendorff's alpha, which takes off chance.

A unit is one question that several raters answered: two responses to compare, or one to rate.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from feedtune.feedback.records import Answer, Kind, RaterKind

Units = Mapping[Hashable, Mapping[str, Any]]
"""What each rater said of each unit."""

DECIDED = ("a", "b", "tie", "both_bad")
"""Choices that say something; `skip` does not."""


@dataclass(frozen=True)
class Agreement:
    """How far raters agree on `units` questions that at least two of them answered."""

    units: int
    percent: float  # of pairs of answers to one question that are the same; NaN without units
    alpha: float  # 1: always, 0: as by chance, below 0: less than that; NaN where chance is not defined


def agreement(answers: Iterable[Answer], kind: Kind) -> Agreement:
    """Between all raters, of comparisons (nominal) or ratings (interval).

    >>> ask = dict(item="i", kind="comparison", time="")
    >>> ann = Answer(id="1", rater="ann", responses=("x", "y"), value="a", **ask)
    >>> bob = Answer(id="2", rater="bob", responses=("y", "x"), value="b", **ask)  # shown the other way round
    >>> agreement([ann, bob], "comparison").percent
    100.0
    """
    return _measured(units_of(answers, kind), kind)


def agreement_between(
    answers: Collection[Answer], kind: Kind, first: RaterKind, second: RaterKind
) -> Agreement:
    """Between two kinds of raters, such as people and judges: each kind has one voice in every question.

    The voice of a kind is what most of its raters said (a tie if two things are said equally often), or the
    mean of their ratings.
    """
    groups = [units_of([one for one in answers if one.by == by], kind) for by in (first, second)]
    voice = _mean if kind == "rating" else _majority
    both = groups[0].keys() & groups[1].keys()
    return _measured(
        {unit: {str(n): voice(group[unit].values()) for n, group in enumerate(groups)} for unit in both}, kind
    )


def units_of(answers: Iterable[Answer], kind: Kind) -> Units:
    """What was said of each question, in whatever order its responses were shown; skipped ones are left out.

    A choice becomes "first" or "second" of the two responses in the order of their ids.
    """
    units: dict[Hashable, dict[str, Any]] = defaultdict(dict)
    for one in answers:
        if one.kind != kind or (kind == "comparison" and one.value not in DECIDED):
            continue
        ordered = tuple(sorted(one.responses))
        units[one.item, ordered][one.rater] = _unordered(one, ordered)
    return units


def _unordered(one: Answer, ordered: tuple[str, ...]) -> Any:
    if one.value not in ("a", "b"):
        return one.value
    chosen = one.responses[0 if one.value == "a" else 1]
    return "first" if chosen == ordered[0] else "second"


def _measured(units: Units, kind: Kind) -> Agreement:
    values = [list(said.values()) for said in units.values() if len(said) > 1]
    distance = interval if kind == "rating" else nominal
    return Agreement(len(values), percent_agreement(values), krippendorff_alpha(values, distance))


def nominal(a: Any, b: Any) -> float:
    """0 for the same value, 1 for another."""
    return float(a != b)


def interval(a: Any, b: Any) -> float:
    """The squared difference of two numbers."""
    return (float(a) - float(b)) ** 2


def percent_agreement(units: Sequence[Sequence[Any]]) -> float:
    """Of all pairs of values of one unit, the share that is the same, in percent; NaN without pairs.

    >>> percent_agreement([["a", "a"], ["a", "b", "b"]])  # 2 of 4 pairs
    50.0
    """
    pairs = sum(math.comb(len(values), 2) for values in units)
    same = sum(math.comb(count, 2) for values in units for count in Counter(values).values())
    return 100 * same / pairs if pairs else math.nan


def krippendorff_alpha(
    units: Sequence[Sequence[Any]], distance: Callable[[Any, Any], float] = nominal
) -> float:
    """1 - observed / expected disagreement (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability).

    Observed is the mean distance between values of one unit, each value counted once; expected the mean
    distance between any two of all values. Units of one value count for nothing. NaN where all values are
    the same: then nobody could have disagreed.

    >>> round(krippendorff_alpha([["a", "a"], ["b", "b"], ["a", "b"]]), 3)
    0.444
    """
    units = [values for values in units if len(values) > 1]
    observed = sum(_distances(Counter(values), distance) / (len(values) - 1) for values in units)
    everything = Counter(value for values in units for value in values)
    expected = _distances(everything, distance) / max(1, everything.total() - 1)
    return 1 - observed / expected if expected else math.nan


def _distances(counts: Counter[Any], distance: Callable[[Any, Any], float]) -> float:
    """The sum over ordered pairs of values that occur so often."""
    return sum(n * m * distance(a, b) for a, n in counts.items() for b, m in counts.items())


def _majority(values: Iterable[Any]) -> Any:
    ranked = Counter(values).most_common(2)
    return "tie" if len(ranked) == 2 and ranked[0][1] == ranked[1][1] else ranked[0][0]


def _mean(values: Iterable[Any]) -> float:
    return float(np.mean([float(value) for value in values]))
