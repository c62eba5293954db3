"""Runs in the order of how often their responses are preferred: the Bradley-Terry model with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feedtune.feedback.records import Answer, Item

Array = NDArray[np.float64]

NORMAL_95 = 1.959964  # 97.5 % of a normal distribution lie below so many standard deviations
SHARE = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
"""What the first of two responses gets of one comparison; `skip` is none."""


@dataclass(frozen=True)
class Place:
    """Where a run stands. Strengths are log-odds against a run of average strength."""

    run: str
    strength: float
    low: float  # the ends of the 95 % interval
    high: float
    games: int  # comparisons with other runs
    wins: float  # ties are half a win


def leaderboard(answers: Iterable[Answer], items: Iterable[Item]) -> list[Place]:
    """The runs that were compared with each other, strongest first.

    Comparisons of two responses of the same run say nothing of runs and are left out; so are skipped ones.
    """
    run_of = {response.id: response.run for item in items for response in item.responses}
    games = [
        (a, b, SHARE[str(one.value)])
        for one in answers
        if one.kind == "comparison" and one.value in SHARE
        for a, b in [tuple(run_of.get(name) for name in one.responses)]
        if a is not None and b is not None and a != b
    ]
    runs = sorted({run for a, b, _ in games for run in (a, b)})
    wins = won(games, runs)
    strength, error = bradley_terry(wins)
    places = [
        Place(
            run,
            float(strength[n]),
            float(strength[n] - NORMAL_95 * error[n]),
            float(strength[n] + NORMAL_95 * error[n]),
            round(float(wins[n].sum() + wins[:, n].sum())),
            float(wins[n].sum()),
        )
        for n, run in enumerate(runs)
    ]
    return sorted(places, key=lambda place: -place.strength)


def won(games: Iterable[tuple[str, str, float]], runs: Iterable[str]) -> Array:
    """Games as a table: entry [i, j] is how often run i beat run j.

    >>> won([("x", "y", 1.0), ("y", "x", 0.5)], ["x", "y"]).tolist()
    [[0.0, 1.5], [0.5, 0.0]]
    """
    place: Mapping[str, int] = {run: n for n, run in enumerate(runs)}
    table = np.zeros((len(place), len(place)))
    for first, second, share in games:
        table[place[first], place[second]] += share
        table[place[second], place[first]] += 1 - share
    return table


def bradley_terry(wins: Array, prior: float = 1.0, steps: int = 100) -> tuple[Array, Array]:
    """Strengths `[n]` with mean 0 and their standard errors, of wins `[n, n]` (row beat column).

    Run i beats run j with probability sigmoid(s_i - s_j) (Bradley and Terry 1952). The strengths are those
    of the greatest likelihood, by Newton's method; the errors come from its curvature there. A run that has
    never lost would be infinitely strong: so each run has `prior` further ties with an opponent of strength
    0, which fade as real comparisons come. 0: none, where every run has won and lost in turn.

    >>> strength, error = bradley_terry(np.array([[0.0, 30.0], [10.0, 0.0]]), prior=0)
    >>> [round(float(s), 3) for s in strength - strength[1]]  # log(30 / 10)
    [1.099, 0.0]
    """
    count = len(wins)
    games = wins + wins.T
    strength = np.zeros(count)
    curve = np.zeros((count, count))
    for _ in range(steps):
        beats = _sigmoid(strength[:, None] - strength)  # [n, n]: P(row beats column)
        slope = (wins - games * beats).sum(1) + prior * (0.5 - _sigmoid(strength))
        spread = games * beats * (1 - beats)
        own = prior * _sigmoid(strength) * _sigmoid(-strength)
        curve = np.diag(spread.sum(1) + own) - spread
        step = np.linalg.pinv(curve) @ slope
        strength = strength + step / max(1.0, float(np.abs(step).max(initial=0.0)))
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
    centre = np.eye(count) - 1 / max(1, count)
    covariance = centre @ np.linalg.pinv(curve) @ centre
    return centre @ strength, np.sqrt(np.clip(np.diag(covariance), 0, None))


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))
