"""The leaderboard: closed forms, another algorithm as oracle, and intervals that cover what they should."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedtune.feedback import Answer, item_of, response_of
from feedtune.feedback.results.leaderboard import bradley_terry, leaderboard


def test_two_runs_by_hand() -> None:
    # Without a prior the odds are the wins: log(30 / 10) apart, and the variance of a log-odds is
    # 1/30 + 1/10; with mean 0, each strength is half of the difference, and so is its error.
    strength, error = bradley_terry(np.array([[0.0, 30.0], [10.0, 0.0]]), prior=0)
    assert strength == pytest.approx([math.log(3) / 2, -math.log(3) / 2])
    assert error == pytest.approx([math.sqrt(1 / 30 + 1 / 10) / 2] * 2)


def test_a_run_that_never_lost_is_strong_but_not_infinitely_so() -> None:
    strength, error = bradley_terry(np.array([[0.0, 5.0], [0.0, 0.0]]))
    # By symmetry the strengths are s and -s. The slope: 5 (1 - p(2s)) + 1/2 - p(s) = 0.
    s = strength[0]
    assert 5 * (1 - 1 / (1 + math.exp(-2 * s))) + 0.5 - 1 / (1 + math.exp(-s)) == pytest.approx(0, abs=1e-9)
    assert 0 < s < 5
    # The curvature along (1, -1) is 2 g + o: g = 5 p(2s) (1 - p(2s)) of the games, o = p(s) (1 - p(s)) of the
    # further tie; half of its inverse is the variance of either strength around their mean.
    p, q = 1 / (1 + math.exp(-2 * s)), 1 / (1 + math.exp(-s))
    assert error == pytest.approx([math.sqrt(1 / (2 * (10 * p * (1 - p) + q * (1 - q))))] * 2)


def minorised(wins: np.ndarray, steps: int = 3000) -> np.ndarray:
    """Bradley-Terry by the MM algorithm (Hunter 2004), which shares nothing with Newton's method."""
    games, worth = wins + wins.T, np.ones(len(wins))
    for _ in range(steps):
        worth = wins.sum(1) / (games / (worth[:, None] + worth)).sum(1)
        worth /= np.exp(np.log(worth).mean())
    return np.log(worth)


@given(st.lists(st.integers(1, 9), min_size=12, max_size=12))
@settings(max_examples=20, deadline=None)
def test_another_algorithm_finds_the_same(counts: list[int]) -> None:
    wins = np.zeros((4, 4))
    wins[~np.eye(4, dtype=bool)] = counts
    strength, _ = bradley_terry(wins, prior=0)
    assert strength == pytest.approx(minorised(wins), abs=1e-6)
    assert strength.sum() == pytest.approx(0, abs=1e-9)


def test_lopsided_tables_converge() -> None:
    """A chain of near-certain wins, on which Newton's method runs away where its steps are not bounded."""
    wins = np.zeros((7, 7))
    for (row, column), count in {
        (0, 1): 1, (0, 2): 3657, (1, 0): 3344, (1, 3): 322, (1, 5): 11, (3, 0): 397, (4, 3): 16, (5, 0): 9,
        (5, 2): 6, (5, 6): 669, (6, 0): 3, (6, 3): 2529, (6, 4): 4993,
    }.items():  # fmt: skip
        wins[row, column] = count
    strength, error = bradley_terry(wins)
    assert np.isfinite(error).all()
    # Where the likelihood is greatest, wins are as many as expected, but for the further ties: 1/2 at most.
    expected = ((wins + wins.T) / (1 + np.exp(strength - strength[:, None]))).sum(1)
    assert np.abs(wins.sum(1) - expected).max() <= 0.5


def test_the_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([0.8, 0.1, -0.9])
    inside = total = 0
    for _ in range(300):
        wins = np.zeros((3, 3))
        for i in range(3):
            for j in range(i):
                chance = 1 / (1 + np.exp(truth[j] - truth[i]))
                wins[i, j] = rng.binomial(60, chance)
                wins[j, i] = 60 - wins[i, j]
        strength, error = bradley_terry(wins)
        inside += int((np.abs(strength - truth) < 1.959964 * error).sum())
        total += 3
    # 900 intervals of 95 %; three standard errors of that share, were they independent, are 0.022.
    assert inside / total == pytest.approx(0.95, abs=0.022)


def compared(prompt: str, *games: tuple[str, str, str], by: str = "person") -> tuple[list[Answer], object]:
    runs = sorted({run for first, second, _ in games for run in (first, second)})
    item = item_of(prompt, [response_of(prompt, f"as {run}", run=run) for run in runs])
    names = {one.run: one.id for one in item.responses}
    answers = [
        Answer(
            id=f"{prompt}{n}",
            item=item.id,
            kind="comparison",
            responses=(names[first], names[second]),
            value=value,
            rater=f"r{n}",
            time="",
        )
        for n, (first, second, value) in enumerate(games)
    ]
    return answers, item


def test_from_answers_to_places() -> None:
    answers, item = compared(
        "Hi", ("x", "y", "a"), ("y", "x", "b"), ("x", "y", "tie"), ("y", "x", "both_bad"), ("x", "y", "skip")
    )
    first, second = leaderboard(answers, [item])  # type: ignore[list-item]
    # x won twice, whichever side it was on, and has half of two ties; the skipped one is none.
    assert (first.run, first.games, first.wins) == ("x", 4, 3.0)
    assert (second.run, second.games, second.wins) == ("y", 4, 1.0)
    [_, _], [error, _] = bradley_terry(np.array([[0.0, 3.0], [1.0, 0.0]]))
    assert first.high - first.strength == pytest.approx(1.959964 * error)
    assert first.strength - first.low == pytest.approx(1.959964 * error)
    assert first.strength == pytest.approx(-second.strength)


def test_responses_of_one_run_or_of_none_say_nothing_of_runs() -> None:
    item = item_of(
        "Hi", [response_of("Hi", "1", run="x"), response_of("Hi", "2", run="x"), response_of("Hi", "3")]
    )
    a, b, c = (one.id for one in item.responses)
    fields = {"item": item.id, "kind": "comparison", "value": "a", "time": ""}
    answers = [
        Answer(id="1", responses=(a, b), rater="r", **fields),  # type: ignore[arg-type]
        Answer(id="2", responses=(a, c), rater="r", **fields),  # type: ignore[arg-type]
        Answer(id="3", responses=("gone", a), rater="r", **fields),  # type: ignore[arg-type]
    ]
    assert leaderboard(answers, [item]) == []
