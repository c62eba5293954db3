"""The position-biased click model by hand, and what it draws against what it says."""

from __future__ import annotations

import math
import random

import pytest

from feedtune.errors import UserError
from feedtune.feedback.events.clicks import ClickOptions, PositionBiased
from feedtune.feedback.events.rankings import entries_of, examined, first_places

GRADES = {"music": 2, "food": 1, "work": 0}


def test_probabilities_by_hand() -> None:
    # attractions: .1, .1 + .9 x 1/3 = .4 and .1 + .9 x 3/3 = 1; places are looked at with 1, 1/2, 1/3
    users = PositionBiased(examination=1.0, noise=0.1, best=2)
    assert users.probabilities("work food music", GRADES) == pytest.approx([0.1, 0.2, 1 / 3])
    assert users.probabilities("music food work", GRADES) == pytest.approx([1.0, 0.2, 0.1 / 3])
    assert PositionBiased(examination=0.0, noise=0.1).probabilities("work music", GRADES) == [0.1, 1.0]
    listed = PositionBiased(examination=[0.9, 0.5, 0.2], noise=0.0)
    assert listed.probabilities("food music work", GRADES) == pytest.approx([0.3, 0.5, 0.0])


def test_repetitions_and_strange_entries() -> None:
    users = PositionBiased(noise=0.1)
    assert users.probabilities("music music dogs", GRADES) == pytest.approx([1.0, 0.0, 0.1 / 3])
    assert users.probabilities("", GRADES) == []
    assert PositionBiased(separator="\n").probabilities("rock music\nfood", {"rock music": 2})[0] == 1.0


def test_what_is_drawn_is_what_is_said() -> None:
    users, generator, count = PositionBiased(), random.Random(0), 20000
    said = users.probabilities("work food music", GRADES)
    drawn = [users.clicked("work food music", GRADES, generator) for _ in range(count)]
    for place, chance in enumerate(said, 1):
        seen = sum(place in one for one in drawn) / count
        assert abs(seen - chance) < 4 * math.sqrt(chance * (1 - chance) / count)
    both = sum({2, 3} <= set(one) for one in drawn) / count  # each place by itself: .2 x 1/3
    assert abs(both - 0.2 / 3) < 4 * math.sqrt(0.0667 * 0.9333 / count)


def test_seed_alone_decides() -> None:
    def three(seed: int) -> list[list[int]]:
        generator = random.Random(seed)
        return [PositionBiased().clicked("work food music", GRADES, generator) for _ in range(9)]

    assert three(1) == three(1)
    assert three(1) != three(2)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"examination": -1.0}, r"clicks\.examination: expected an exponent from 0, got -1"),
        ({"examination": math.inf}, r"clicks\.examination: expected an exponent"),
        ({"examination": [1.0, 0.0]}, r"clicks\.examination: .*above 0 and at most 1, got \[1\.0, 0\.0\]"),
        ({"examination": []}, r"clicks\.examination: expected the probabilities"),
        ({"noise": 1.5}, r"clicks\.noise: expected a number in \[0, 1\], got 1\.5"),
        ({"best": 0}, r"clicks\.best: expected a grade from 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        ClickOptions(**options).users()  # type: ignore[arg-type]


def test_grades_and_places_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match=r"clicks\.best: grades go from 0 to 2, and a document has 3"):
        PositionBiased().probabilities("music", {"music": 3})
    with pytest.raises(UserError, match=r"clicks\.examination: .*for 1 places; place 2 was shown"):
        PositionBiased(examination=[1.0]).probabilities("music food", GRADES)


def test_rankings_as_texts() -> None:
    assert entries_of(" a\n b  c ") == ["a", "b", "c"]
    assert entries_of("one a\n\n two b \n", "\n") == ["one a", "two b"]
    assert first_places(["a", "b", "a", "c"]) == {"a": 1, "b": 2, "c": 4}
    assert [examined("key", 0.5, place) for place in (1, 4)] == [1.0, 0.5]
