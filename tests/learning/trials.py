"""What each algorithm learns from, and how what it has learnt is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from feedtune.contracts import Row
from learning.learn import Learnt, learn
from learning.settings import IMITATION, Setting
from learning.task import PROMPTS, logged, preferred, right_answers, split_pairs


@dataclass(frozen=True)
class Outcome:
    """`judged` has to reach the threshold; a policy's other way of answering is there to be looked at."""

    judged: float
    other: float | None = None


def trial(algorithm: str, backbone: str, seed: int, setting: Setting) -> Outcome:
    """Train by the setting and judge: the mean score of answers, or the share of pairs in the right order."""
    return TRIALS.get(algorithm, _sampled(lambda: PROMPTS))(algorithm, backbone, seed, setting)


Trial = Callable[[str, str, int, Setting], Outcome]
Rows = Callable[[], Sequence[Row]]


def _sampled(rows: Rows) -> Trial:
    """Judged by sampled answers: what the policy says, it has to mean."""

    def run(algorithm: str, backbone: str, seed: int, setting: Setting) -> Outcome:
        learnt = _learn(algorithm, backbone, rows(), seed, setting)
        return Outcome(learnt.quality(), learnt.quality(greedy=True))

    return run


def _greedy(rows: Rows) -> Trial:
    """Judged by greedy answers, as values are: what is sampled explores, or is as warm as its temperature."""

    def run(algorithm: str, backbone: str, seed: int, setting: Setting) -> Outcome:
        learnt = _learn(algorithm, backbone, rows(), seed, setting)
        return Outcome(learnt.quality(greedy=True), learnt.quality())

    return run


def _from_imitation(algorithm: str, backbone: str, seed: int, setting: Setting) -> Outcome:
    """Two stages: imitate the log, then learn which of two answers is preferred."""
    start = imitator(backbone, seed).weights()
    overrides = setting.chosen()
    learnt = learn(algorithm, backbone, preferred(), seed, setting.epochs, *overrides, weights=start)
    return Outcome(learnt.quality(), learnt.quality(greedy=True))


def _held_out(algorithm: str, backbone: str, seed: int, setting: Setting) -> Outcome:
    """Judged by pairs that were not learnt from."""
    pairs, held_out = split_pairs()
    return Outcome(_learn(algorithm, backbone, pairs, seed, setting).order(held_out))


TRIALS: dict[str, Trial] = {
    "sft": _sampled(right_answers),
    "q_learning": _greedy(lambda: PROMPTS),
    "dqn": _greedy(lambda: PROMPTS),
    "soft_q": _greedy(lambda: PROMPTS),
    "cql": _greedy(logged),
    "ilql": _sampled(logged),
    "dpo": _from_imitation,
    "reward_model": _held_out,
}
"""All other algorithms answer the prompts themselves and are judged by what they sample."""


def _learn(algorithm: str, backbone: str, rows: Sequence[Row], seed: int, setting: Setting) -> Learnt:
    return learn(algorithm, backbone, rows, seed, setting.epochs, *setting.chosen())


@cache
def imitator(backbone: str, seed: int) -> Learnt:
    """A policy that speaks like the log, right and wrong alike."""
    setting = IMITATION[backbone]
    return _learn("sft", backbone, logged(), seed, setting)
