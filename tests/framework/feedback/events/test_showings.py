"""Events find the showing that they came of: late ones, strange ones, doubles, in any order."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from click_logs import Shown, at, clicks, events, item
from feedtune.errors import UserError
from feedtune.feedback.events.showings import check_weights, join
from feedtune.feedback.records import Event

TEA = Shown("Tea?", "Yes!", 0.5, [("click", 1.0, None, 60.0), ("dwell", 8.0, None, 90.0)])
AGAIN = Shown("Tea?", "Yes!", 0.5, [("click", 1.0, None, 5.0), ("click", 1.0, None, 6.0)])
COFFEE = Shown("Tea?", "Coffee.", 0.25)
SHOWN = [TEA, COFFEE, AGAIN]  # an hour apart
ITEMS = [item(TEA), item(COFFEE)]
WEIGHTS = {"click": 1.0, "dwell": 0.5}


def test_each_event_goes_to_the_showing_before_it() -> None:
    joined = join(ITEMS, events(SHOWN))
    assert [one.text for one in joined.showings] == ["Yes!", "Coffee.", "Yes!"]
    # the first showing: a click and 8 s at a half each; the second showing of the same response: two clicks
    assert [one.earned(WEIGHTS) for one in joined.showings] == [5.0, 0.0, 2.0]
    assert [one.propensity for one in joined.showings] == [0.5, 0.25, 0.5]
    assert (joined.unknown, joined.unshown, joined.late, joined.young) == (0, 0, 0, 0)


def test_kinds_without_a_weight_count_nothing() -> None:
    assert [one.earned({"purchase": 2.0}) for one in join(ITEMS, events(SHOWN)).showings] == [0, 0, 0]


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_arrival_and_doubles_change_nothing(seed: int) -> None:
    arrived = [*events(SHOWN), *events(SHOWN)]
    random.Random(seed).shuffle(arrived)
    assert join(ITEMS, arrived) == join(ITEMS, events(SHOWN))


def test_events_of_unknown_responses_are_counted() -> None:
    stranger = Event(id="strange", response="nobody", kind="click", time=at(10))
    joined = join(ITEMS, [*events(SHOWN), stranger])
    assert joined.unknown == 1
    assert joined.showings == join(ITEMS, events(SHOWN)).showings
    assert join(ITEMS[:1], events(SHOWN)).unknown == 1  # the showing of coffee


def test_an_event_before_any_showing_is_of_none() -> None:
    early = Event(id="early", response=ITEMS[0].responses[0].id, kind="click", time=at(-1))
    joined = join(ITEMS, [*events(SHOWN), early])
    assert joined.unshown == 1
    assert joined.showings == join(ITEMS, events(SHOWN)).showings


def test_a_click_at_the_moment_of_its_showing_is_of_it() -> None:
    at_once = [replace(one, time=at(0)) for one in events([TEA])]
    assert join(ITEMS, at_once[::-1]).showings[0].earned(WEIGHTS) == 5.0


def test_late_events_do_not_count() -> None:
    joined = join(ITEMS, events([*SHOWN, COFFEE]), window=75.0)
    assert joined.late == 1  # the dwell, 90 s after its showing
    assert [one.earned(WEIGHTS) for one in joined.showings] == [1.0, 0.0, 2.0]


def test_showings_that_may_still_earn_are_left_out() -> None:
    """The log ends 6 s after the last showing: of that, 60 s are not known yet."""
    joined = join(ITEMS, events(SHOWN), window=60.0)
    assert joined.young == 1
    assert [one.earned(WEIGHTS) for one in joined.showings] == [1.0, 0.0]  # 60 s are still inside
    assert join(ITEMS, events(SHOWN), window=6.0).young == 0


def test_times_have_zones() -> None:
    """The same moment in another zone is the same moment."""
    shown, click = events([Shown("Tea?", "Yes!", None, clicks(1))])
    moved = replace(click, time="2026-01-01T04:00:02-08:00")
    assert join(ITEMS, [shown, moved]).showings[0].earned(WEIGHTS) == 1.0
    with pytest.raises(UserError, match=r"event event 0\.0: time: expected a time with its zone"):
        join(ITEMS, [shown, replace(click, time="2026-01-01T12:00:02")])


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        ({}, r"reward\.weights: expected kinds of events"),
        ({"click": 0.0}, r"reward\.weights: expected kinds of events"),
        ({"shown": 1.0}, r"reward\.weights\.shown: being shown earns nothing"),
    ],
)
def test_weights_that_earn_nothing_are_refused(weights: dict[str, float], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        check_weights("reward.weights", weights)
