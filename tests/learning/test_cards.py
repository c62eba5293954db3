"""Every card of conf/algorithm learns a small task on every backbone that it is for, with two seeds.

A table of settings says how long, and which score is asked for; the untrained policy and the imitation of the
log, far below, are asserted too. The first seed of a table and of an LSTM runs by default, the rest in CI.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from feedtune.config.discovery import own_conf
from learning.learn import SIZES, learn
from learning.settings import SETTINGS, Setting
from learning.task import LETTERS, answer, logged, right_answers, score, split_pairs
from learning.trials import imitator, trial

CARDS = sorted(file.stem for file in (own_conf() / "algorithm").glob("*.yaml"))
SEEDS = (0, 1)
QUICK = {("ngram", 0), ("lstm", 0)}
HEAVY = {"dqn", "soft_q", "ilql", "dpo"}
"""Cards whose LSTM takes more than three seconds."""


def _marks(backbone: str, seed: int, algorithm: str = "") -> list[pytest.MarkDecorator]:
    quick = (backbone, seed) in QUICK and (backbone == "ngram" or algorithm not in HEAVY)
    return [] if quick else [pytest.mark.slow]


def _trials() -> Iterator[Any]:
    for algorithm, row in SETTINGS.items():
        for backbone, setting in row.items():
            for seed in SEEDS if isinstance(setting, Setting) else ():
                name = f"{algorithm}-{backbone}-{seed}"
                yield pytest.param(
                    algorithm, backbone, seed, setting, id=name, marks=_marks(backbone, seed, algorithm)
                )


@pytest.mark.parametrize(("algorithm", "backbone", "seed", "setting"), list(_trials()))
def test_learns(
    algorithm: str,
    backbone: str,
    seed: int,
    setting: Setting,
    record_property: Callable[[str, object], None],
) -> None:
    outcome = trial(algorithm, backbone, seed, setting)
    record_property("judged", outcome.judged)
    record_property("other", outcome.other)
    assert outcome.judged >= setting.at_least, outcome


def test_every_card_has_its_row() -> None:
    assert sorted(SETTINGS) == CARDS
    for row in SETTINGS.values():
        assert set(row) == set(SIZES)


def test_only_a_table_is_left_out_of_networks() -> None:
    """What is not tried is told by name, so that a card cannot be left out in silence."""
    left_out = {(card, name) for card, row in SETTINGS.items() for name in row if isinstance(row[name], str)}
    assert left_out == {("q_learning", name) for name in ("lstm", "gru", "transformer")}


@pytest.mark.parametrize("backbone", SIZES)
def test_the_untrained_policy_is_far_below(backbone: str) -> None:
    untrained = learn("sft", backbone, right_answers(), 0, 0)
    lowest = min(s.at_least for row in SETTINGS.values() for s in row.values() if isinstance(s, Setting))
    assert max(untrained.quality(), untrained.quality(greedy=True)) <= lowest / 2


def test_the_right_answers_are_worth_one_and_the_log_a_third() -> None:
    """Of its letters 0.3 + 0.2 / 4 = 0.35 are right; over 512 rows that holds within 3 deviations.

    The deviation of the mean of 1024 letters is sqrt(0.35 x 0.65 / 1024) = 0.015.
    """
    assert {score(letter, answer(letter)) for letter in LETTERS} == {1.0}
    worth = [row["reward"] for row in logged()]
    assert sum(worth) / len(worth) == pytest.approx(0.35, abs=0.045)


def test_no_held_out_pair_was_learnt_from() -> None:
    learnt, held_out = split_pairs()
    assert len(learnt) >= 100
    assert len(held_out) >= 50
    assert not [pair for pair in held_out if pair in learnt]


@pytest.mark.parametrize("backbone", [pytest.param(name, marks=_marks(name, 0, "dpo")) for name in SIZES])
def test_who_imitates_the_log_stays_behind(backbone: str) -> None:
    """So what cql, ilql and dpo make of it they have from rewards and preferences."""
    start = imitator(backbone, 0)
    sampled, greedy = start.quality(), start.quality(greedy=True)
    assert sampled == pytest.approx(0.35, abs=0.1)
    assert greedy <= 0.15
    for name in ("cql", "ilql", "dpo"):
        setting = SETTINGS[name][backbone]
        assert isinstance(setting, Setting)
        assert setting.at_least >= sampled + 0.15
