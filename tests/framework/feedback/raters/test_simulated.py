"""Simulated raters judge as their habits say: frequencies against the formulas, and nothing left to luck."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean

import pytest

from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.feedback.ids import item_of, response_of
from feedtune.feedback.raters.simulated import Habits, SimulatedRater
from feedtune.feedback.records import Item

COUNT = 2000
ERRORS = 4.0  # standard errors that a frequency may be off: once in 16,000


def worth(samples: Sequence[Sample]) -> list[float]:
    """What a response says of itself: "0.5 ..." is worth 0.5."""
    return [float(sample.response.split()[0]) for sample in samples]


def pair(number: int, one: float = 0.4, other: float = 0.1) -> Item:
    """A question of its own, whose first response is worth `one` and its second `other`."""
    prompt = f"question {number}"
    texts = (f"{one} first {number}", f"{other} second {number}")
    return item_of(prompt, [response_of(prompt, text) for text in texts])


def shown(item: Item) -> list[str]:
    return [one.id for one in item.responses]


def first_wins(name: str, habits: Habits, one: float = 0.4, other: float = 0.1) -> list[bool]:
    rater = SimulatedRater(name, worth, habits)
    items = [pair(n, one, other) for n in range(COUNT)]
    return [rater.compare(item, shown(item)) == "a" for item in items]


def near(found: float, expected: float) -> bool:
    return abs(found - expected) <= ERRORS * math.sqrt(expected * (1 - expected) / COUNT)


@pytest.mark.parametrize(("gap", "temperature"), [(0.25, 0.25), (0.3, 0.6), (0.0, 0.5), (-0.5, 0.25)])
def test_the_better_wins_as_often_as_bradley_and_terry_say(gap: float, temperature: float) -> None:
    wins = first_wins("ann", Habits(temperature=temperature), one=0.2 + gap, other=0.2)
    assert near(fmean(wins), 1 / (1 + math.exp(-gap / temperature)))


def test_without_noise_the_better_always_wins() -> None:
    assert all(first_wins("ann", Habits(temperature=0.0)))
    even = fmean(first_wins("ann", Habits(temperature=0.0), one=0.3, other=0.3))
    assert near(even, 0.5)


@pytest.mark.parametrize(
    "habits", [Habits(temperature=0.5), Habits(disagreement=0.5), Habits(temperature=0.0)]
)
def test_what_is_shown_first_changes_nothing_for_who_looks(habits: Habits) -> None:
    rater = SimulatedRater("ann", worth, habits)
    mirrored = {"a": "b", "b": "a"}
    for n in range(200):
        item = pair(n, 0.2, 0.2)
        one, other = shown(item)
        assert rater.compare(item, (one, other)) == mirrored[rater.compare(item, (other, one))]


def test_who_does_not_look_says_what_is_first_or_anything() -> None:
    """Half the answers are lazy; without noise the others are right, so `a` is said to 1/2, and 1/2 + 1/4."""
    lazy = Habits(temperature=0.0, laziness=0.5)
    for habits, expected in ((lazy, 0.25), (Habits(temperature=0.0, laziness=0.5, lazy="first"), 0.5)):
        wins = first_wins("ann", habits, one=0.1, other=0.4)  # the first shown is the worse one
        assert near(fmean(wins), expected)
    assert all(first_wins("ann", Habits(laziness=1.0, lazy="first"), one=-9.0, other=9.0))


def test_raters_of_other_opinions_disagree_as_their_deviation_says() -> None:
    """Own opinions of two responses differ by a normal of deviation s sqrt 2; each rater keeps its own."""
    habits = Habits(temperature=0.0, disagreement=0.3)
    share = NormalDist(0.0, 0.3 * math.sqrt(2)).cdf(0.3)
    ann, bob = (first_wins(name, habits) for name in ("ann", "bob"))
    assert near(fmean(ann), share)
    assert near(fmean(bob), share)
    same = fmean(a == b for a, b in zip(ann, bob, strict=True))
    assert near(same, share**2 + (1 - share) ** 2)  # independent of each other
    assert first_wins("ann", habits) == ann


def test_an_answer_depends_on_item_rater_and_seed_alone() -> None:
    habits = Habits(temperature=0.5, laziness=0.2)
    items = [pair(n) for n in range(300)]
    rater = SimulatedRater("ann", worth, habits)
    said = {item.id: rater.compare(item, shown(item)) for item in items}
    again = SimulatedRater("ann", worth, habits)
    assert {item.id: again.compare(item, shown(item)) for item in reversed(items)} == said
    others = (
        SimulatedRater("bob", worth, habits),
        SimulatedRater("ann", worth, habits, seed=1),
    )
    for other in others:
        assert {item.id: other.compare(item, shown(item)) for item in items} != said


def test_what_is_alike_is_a_tie_and_what_has_no_score_is_skipped() -> None:
    rater = SimulatedRater("ann", worth, Habits(indifference=0.1))
    close, apart, unknown = pair(1, 0.3, 0.25), pair(2, 9.0, 0.2), pair(3, math.nan, 0.2)
    assert rater.compare(close, shown(close)) == "tie"
    assert rater.compare(apart, shown(apart)) == "a"
    assert rater.compare(unknown, shown(unknown)) == "skip"
    assert rater.rate(unknown, shown(unknown)[0]) is None


def test_ratings_lie_in_proportion_between_worst_and_best() -> None:
    """From 0 to 8 in five steps: 2 a step, so 3.1 is 2.55 steps of a scale from 1, rounded 3."""
    rater = SimulatedRater("ann", worth, Habits(temperature=0.0, worst=0.0, best=8.0))
    golden = {-5.0: 1, 0.0: 1, 0.9: 1, 1.1: 2, 3.1: 3, 4.9: 3, 5.1: 4, 8.0: 5, 50.0: 5}
    for n, (value, rating) in enumerate(golden.items()):
        item = pair(n, value, 0.0)
        assert rater.rate(item, shown(item)[0]) == rating
    lazy = SimulatedRater("ann", worth, Habits(laziness=1.0, lazy="first"))
    assert lazy.rate(pair(0), shown(pair(0))[0]) == 3


def test_noise_of_ratings_has_no_side() -> None:
    """A mean of 3 stays 3 where noise rarely reaches the ends: a Gumbel draw less its mean."""
    rater = SimulatedRater("ann", worth, Habits(temperature=0.2, worst=-2.0, best=2.0))
    items = [pair(n, 0.0, 0.0) for n in range(COUNT)]
    found = [rater.rate(item, shown(item)[0]) or 0 for item in items]
    deviation = 0.2 * math.pi / math.sqrt(6)  # of a Gumbel draw; one rating is 1 of the hidden reward
    rounding = math.sqrt(1 / 12)
    assert abs(fmean(found) - 3) < ERRORS * math.hypot(deviation, rounding) / math.sqrt(COUNT) + 0.03
    assert len(set(found)) > 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"temperature": -0.1}, "simulate.temperature: expected at least 0, got -0.1"),
        ({"laziness": 1.5}, "simulate.laziness: expected a number in [0, 1], got 1.5"),
        ({"lazy": "frist"}, "Did you mean 'first'?"),
        ({"disagreement": -1.0}, "simulate.disagreement: expected at least 0"),
        ({"indifference": -1.0}, "simulate.indifference: expected at least 0"),
        ({"worst": 1.0}, "simulate.best: expected more than simulate.worst=1.0, got 1.0"),
    ],
)
def test_habits_that_nobody_can_have_are_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(UserError) as error:
        Habits(**wrong)  # type: ignore[arg-type]
    assert words in str(error.value)
