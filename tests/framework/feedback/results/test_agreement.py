"""Agreement between raters: published values, the definition itself as oracle, and laws."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedtune.feedback import Answer
from feedtune.feedback.results.agreement import (
    agreement,
    agreement_between,
    interval,
    krippendorff_alpha,
    nominal,
    percent_agreement,
    units_of,
)

UNITS = st.lists(st.lists(st.sampled_from([1, 2, 3, 5]), min_size=1, max_size=4), min_size=1, max_size=8)

# The reliability data of Krippendorff (2011), part C: 4 observers, 12 units, values missing (0).
OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3),
    (0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0),
)
PUBLISHED = [[value for value in unit if value] for unit in zip(*OBSERVERS, strict=True)]


def said(rater: str, value: Any, shown: tuple[str, ...] = ("x", "y"), item: str = "i", **more: Any) -> Answer:
    kind = more.pop("kind", "comparison" if len(shown) == 2 else "rating")
    name = f"{rater} {item} {shown} {value}"
    return Answer(id=name, item=item, kind=kind, responses=shown, value=value, rater=rater, time="", **more)


@pytest.mark.parametrize(("distance", "published"), [(nominal, 0.743), (interval, 0.849)])
def test_alpha_is_the_published_one(distance: Any, published: float) -> None:
    assert krippendorff_alpha(PUBLISHED, distance) == pytest.approx(published, abs=5e-4)


def test_alpha_by_hand() -> None:
    # Three units of two values: aa, bb, ab. All six values: 3 a, 3 b.
    # Observed: of the unit ab both ordered pairs differ, each weighs 1 / (2 - 1): 2, over 6 values: 1/3.
    # Expected: 2 * 3 * 3 ordered pairs differ, of 6 * 5: 18/30. Alpha: 1 - (1/3) / (18/30) = 4/9.
    assert krippendorff_alpha([["a", "a"], ["b", "b"], ["a", "b"]]) == pytest.approx(4 / 9)


def by_definition(units: list[list[Any]], distance: Any) -> float:
    """1 - mean distance within units / mean distance between any two values, pair by pair."""
    units = [unit for unit in units if len(unit) > 1]
    n = sum(map(len, units))
    within = sum(
        distance(a, b) / (len(unit) - 1) for unit in units for a, b in itertools.permutations(unit, 2)
    )
    every = [value for unit in units for value in unit]
    between = sum(distance(a, b) for a, b in itertools.permutations(every, 2))
    return 1 - (within / n) / (between / (n * (n - 1))) if between else math.nan


@given(UNITS)
@settings(max_examples=60, deadline=None)
def test_alpha_is_its_definition(units: list[list[int]]) -> None:
    for distance in (nominal, interval):
        expected = by_definition(units, distance)
        assert krippendorff_alpha(units, distance) == pytest.approx(expected, nan_ok=True)


@given(UNITS)
@settings(max_examples=40, deadline=None)
def test_names_of_values_mean_nothing_where_they_are_names(units: list[list[int]]) -> None:
    renamed = [[f"value {value}" for value in unit] for unit in units]
    assert krippendorff_alpha(renamed) == pytest.approx(krippendorff_alpha(units), nan_ok=True)
    assert percent_agreement(renamed) == pytest.approx(percent_agreement(units), nan_ok=True)


def test_the_ends_of_the_scale() -> None:
    assert krippendorff_alpha([["a", "a"], ["b", "b"]]) == 1.0
    assert krippendorff_alpha([["a", "b"], ["b", "a"]]) < 0  # less than by chance
    assert math.isnan(krippendorff_alpha([["a", "a"], ["a", "a"]]))  # nobody could have disagreed
    assert math.isnan(krippendorff_alpha([["a"], []]))
    assert math.isnan(percent_agreement([["a"]]))


def test_the_order_in_which_responses_were_shown_does_not_matter() -> None:
    same = [said("ann", "a"), said("bob", "b", ("y", "x")), said("cy", "a")]
    other = [said("ann", "a"), said("bob", "a", ("y", "x"))]
    assert agreement(same, "comparison").percent == 100.0
    assert agreement(other, "comparison").percent == 0.0


def test_what_counts_as_shared() -> None:
    answers = [
        said("ann", "a"),
        said("bob", "a"),
        said("cy", "skip"),  # says nothing
        said("ann", "tie", ("x", "z")),  # another pair of the same item
        said("bob", "a", item="j"),
        said("ann", 4.0, ("x",)),  # ratings are of their own
        said("bob", 2.0, ("x",)),
        said("cy", "so so", ("x",), kind="comment"),
    ]
    assert agreement(answers, "comparison").units == 1
    rated = agreement(answers, "rating")
    assert (rated.units, rated.percent) == (1, 0.0)


def test_a_choice_is_known_by_the_order_of_ids() -> None:
    answers = [said("ann", "a"), said("bob", "a", ("y", "x")), said("cy", "tie")]
    assert units_of(answers, "comparison") == {
        ("i", ("x", "y")): {"ann": "first", "bob": "second", "cy": "tie"}
    }


def test_ratings_that_are_close_agree_more_than_those_that_are_not() -> None:
    # Two units, 1 2 and 5 4. Observed: 2 * 1 + 2 * 1 = 4. Squared differences of 1, 2, 4, 5, both ways:
    # 2 * (1 + 9 + 16 + 4 + 9 + 1) = 80, over 3. Alpha: 1 - 4 / (80 / 3) = 0.85; as names it would be below 0.
    answers = [
        said(rater, value, ("x",), item)
        for rater, item, value in (("ann", "i", 1.0), ("bob", "i", 2.0), ("ann", "j", 5.0), ("bob", "j", 4.0))
    ]
    assert agreement(answers, "rating").alpha == pytest.approx(0.85)


def test_people_and_judges_each_have_one_voice() -> None:
    def of(item: str, people: list[str], judges: list[str]) -> list[Answer]:
        mine = [said(f"p{n}", value, item=item) for n, value in enumerate(people)]
        return mine + [said(f"j{n}", value, item=item, by="judge") for n, value in enumerate(judges)]

    answers = [
        *of("1", ["a", "a", "b"], ["a"]),  # most people: a
        *of("2", ["a", "b"], ["tie"]),  # no majority: a tie
        *of("3", ["b"], ["a", "a"]),
        *of("4", ["b"], []),  # no judge
        *of("5", [], ["b"]),  # nobody but a judge
        said("s", "b", item="4", by="simulated"),  # who is neither
    ]
    found = agreement_between(answers, "comparison", "person", "judge")
    assert (found.units, found.percent) == (3, pytest.approx(200 / 3))
    # Values by unit: first first, tie tie, second first. Counts: 3 first, 2 ties, 1 second.
    # Observed 2; expected (3*3 + 2*4 + 1*5) / 5 = 22/5; alpha = 1 - 2 / 4.4.
    assert found.alpha == pytest.approx(1 - 2 / 4.4)


def test_ratings_of_a_kind_are_averaged() -> None:
    answers = [
        said("ann", 2.0, ("x",)),
        said("bob", 4.0, ("x",)),
        said("judge", 3.0, ("x",), by="judge"),
        said("ann", 1.0, ("y",)),
        said("judge", 1.0, ("y",), by="judge"),
    ]
    found = agreement_between(answers, "rating", "person", "judge")
    assert (found.units, found.percent, found.alpha) == (2, 100.0, 1.0)
