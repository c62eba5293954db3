"""Policy-gradient cards and the worlds they are proven in, for the tests of conf/algorithm's family.

A card is built as `feedtune train` builds it, and given what it says it needs by the oracle alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.contracts import Algorithm
from feedtune.policy import Policy
from feedtune.testing import oracle
from feedtune.testing.oracle import Batch, Ragged, World
from feedtune_plugins.algorithms import PolicyGradient
from feedtune_plugins.backbones.ngram import NGram

LENGTH = 2  # most tokens of a turn, and collector.max_new_tokens
KL = "{_target_: feedtune_plugins.algorithms.KLPenalty, coefficient: 0.3, place: PLACE, estimator: ESTIMATOR}"
IN_REWARD = ("algorithm.kl=" + KL.replace("PLACE", "reward").replace("ESTIMATOR", "k1"),)
IN_LOSS = ("algorithm.kl=" + KL.replace("PLACE", "loss").replace("ESTIMATOR", "k3"),)
NO_KL = ("algorithm.kl=null",)
BETA = 0.3


@cache
def composed(name: str, overrides: tuple[str, ...]) -> Any:
    common = [f"algorithm={name}", f"collector.max_new_tokens={LENGTH}"]
    return compose_config([*common, *overrides]).algorithm


def build_card(name: str, overrides: tuple[str, ...] = ()) -> PolicyGradient:
    algorithm = build(composed(name, overrides), "algorithm")
    assert isinstance(algorithm, PolicyGradient)
    return algorithm


@dataclass(eq=False)
class Laboratory:
    """A world, the policy that drew its rows, one that has moved on since, a reference and a critic."""

    world: World
    spread: float = 1.3  # of theta - theta_old, so that ratios lie beyond every clip
    old: np.ndarray = field(init=False)
    theta: np.ndarray = field(init=False)
    reference: np.ndarray = field(init=False)
    values: np.ndarray = field(init=False)  # as wrong as can be

    def __post_init__(self) -> None:
        self.old, self.reference = self.world.random_logits(21), self.world.random_logits(22)
        self.theta = self.old + self.world.random_logits(25, self.spread)
        self.values = self.world.random_values(26)
        self.greedy = [
            oracle.greedy_row(self.world, self.old, prompt).score for prompt in range(len(self.world.prompts))
        ]

    def make_backbone(self) -> NGram:
        longest = max(len(row.tokens) for row in self.world.rows)
        return NGram(vocab_size=self.world.vocab_size, n=longest + 1, buckets=10**6).double()

    def policy(self, algorithm: Algorithm) -> Policy:
        return algorithm.build_policy(self.make_backbone)

    def batch(self, numbers: tuple[int, ...], logits: np.ndarray | None = None) -> Batch:
        rows = [self.world.rows[i] for i in numbers]
        return Batch(rows, self.old if logits is None else logits, self.old, self.reference)

    def greedy_scores(self, batch: Batch) -> list[float]:
        """The score of the old policy's greedy answer to each row's prompt."""
        return [self.greedy[row.prompt] for row in batch.rows]


class Autograd:
    """The gradient of a card's loss with respect to the logits that act, by the code under test."""

    def __init__(self, laboratory: Laboratory, algorithm: Algorithm) -> None:
        self.laboratory, self.algorithm = laboratory, algorithm
        self.policy = laboratory.policy(algorithm)
        table = self.policy.backbone.table  # type: ignore[union-attr]
        self.weight = table.weight
        self.states = oracle.Table(laboratory.world, self.policy.backbone)

    def gradient(self, batch: Batch) -> np.ndarray:
        """A table of logits is divided by the temperature before it acts, and so is its gradient."""
        temperature = self.policy.temperature
        self.states.write(self.weight, batch.logits * temperature)
        exp = self._supplied(batch)
        with torch.no_grad():
            exp, _ = self.algorithm.prepare(exp, self.policy)
        loss = self.algorithm.loss(exp, self.policy)
        (found,) = torch.autograd.grad(loss.sum / loss.denominator, [self.weight])
        return self.states.read(found) * temperature

    def _supplied(self, batch: Batch) -> Any:
        """What the algorithm says it needs, and nothing else."""
        needs, rows, old = self.algorithm.needs(), batch.rows, batch.old
        assert needs <= {"old_logp", "reference", "values", "greedy", "groups"}
        assert old is not None
        exp = oracle.experience(rows, group=batch.groups, pad_id=self.laboratory.world.eos)
        if "old_logp" in needs:
            exp = replace(exp, old_logp=oracle.logp_tensor(rows, old))
        if "reference" in needs:
            exp = replace(exp, ref_logp=oracle.logp_tensor(rows, self.laboratory.reference))
        if "values" in needs:
            value, bootstrap = oracle.value_tensors(rows, self.laboratory.values)
            exp = exp.with_(value=value, bootstrap=bootstrap)
        if "greedy" in needs:
            scores = torch.tensor(self.laboratory.greedy_scores(batch), dtype=torch.float64)
            exp = exp.with_(greedy=scores)
        return exp


# The cards: what the oracle says each is. Eps and clips stand here again, so that a card cannot drift.

Weights = Callable[[Laboratory, Batch, float], Ragged]


@dataclass(frozen=True)
class Card:
    """A card, the arguments that turn its KL on and off, and the weights it must have at a coefficient."""

    weights: Weights
    leash: tuple[str, ...] | None  # None: the algorithm has no KL
    overrides: tuple[str, ...] = ()
    clip: tuple[float, float] | None = None  # low, high
    cap: float | None = None

    def build(self, name: str, beta: float, *more: str) -> PolicyGradient:
        leash = (self.leash or ()) if beta else NO_KL
        return build_card(name, (*self.overrides, *leash, *more))


def _a2c(lab: Laboratory, batch: Batch, beta: float) -> Ragged:
    return oracle.a2c(batch, lab.values, beta=beta, aggregation="token_mean")


CARDS: dict[str, Card] = {
    "reinforce": Card(lambda _, b, beta: oracle.reinforce(b, "leave_one_out", beta=beta), IN_REWARD),
    "a2c": Card(_a2c, IN_REWARD, ("algorithm.entropy=0",)),
    "ppo": Card(lambda lab, b, beta: oracle.ppo(b, lab.values, beta=beta), IN_REWARD, clip=(0.2, 0.2)),
    "rloo": Card(lambda _, b, beta: oracle.rloo(b, beta=beta), IN_REWARD),
    "grpo": Card(lambda _, b, beta: oracle.grpo(b, eps=1e-4, beta=beta), IN_LOSS, clip=(0.2, 0.2)),
    "dr_grpo": Card(lambda _, b, beta: oracle.dr_grpo(b, length=LENGTH, beta=beta), IN_LOSS, clip=(0.2, 0.2)),
    "dapo": Card(
        lambda _, b, beta: oracle.dapo(b, limit=LENGTH, cache=1, eps=1e-4),
        None,
        ("algorithm.overlong.margin=1",),
        clip=(0.2, 0.28),
    ),
    "gspo": Card(lambda _, b, beta: oracle.gspo(b, eps=1e-4, beta=beta), IN_LOSS, clip=(3e-4, 4e-4)),
    "cispo": Card(lambda _, b, beta: oracle.cispo(b, cap=5.0, eps=1e-4), None, cap=5.0),
    "reinforce_pp": Card(lambda _, b, beta: oracle.reinforce_pp(b, beta=beta), IN_REWARD, clip=(0.2, 0.2)),
    "remax": Card(lambda lab, b, beta: oracle.remax(b, lab.greedy_scores(b), beta=beta), IN_REWARD),
}
LEASHED = [(name, beta) for name, card in CARDS.items() for beta in (0.0, BETA) if not beta or card.leash]


def one_prompt() -> Laboratory:
    """Seven rows; with G = 4 there are 210 batches."""
    return Laboratory(World(vocab_size=3, length=LENGTH, seed=31))


def per_row() -> Laboratory:
    """The same rows with a score each, as reward models give it; some scores are equal, and some groups."""
    score = {(2,): 1.0, (0, 0): 0.0, (0, 1): 1.0, (0, 2): 0.1, (1, 0): -1.0, (1, 1): 0.1, (1, 2): 0.1}
    return Laboratory(
        World(vocab_size=3, length=LENGTH, reward=lambda s, token: score.get((*s[1:], token), 0.0))
    )


def two_prompts() -> Laboratory:
    """Three rows a prompt, which are as long as in feedtune tokens of several prompts: 1 and 2."""
    return Laboratory(World(vocab_size=2, length=LENGTH, prompts=[(0,), (1, 1)], seed=33))


def turns() -> Laboratory:
    """Nine rows of two turns with an observation between, which may be the end-of-text token."""
    return Laboratory(World(vocab_size=2, length=LENGTH, turns=2, seed=34))


def truncated() -> Laboratory:
    """Rows at the limit are not done: values go on."""
    return Laboratory(World(vocab_size=3, length=LENGTH, cut="truncated", seed=35))


def close(found: np.ndarray, expected: np.ndarray, atol: float = 1e-11) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def batches(lab: Laboratory, size: int) -> list[tuple[tuple[int, ...], int]]:
    """Every batch of so many rows of each prompt, and how many orders it stands for.

    Which of them is tried is drawn: neighbours may answer different prompts.
    """
    found: list[tuple[tuple[int, ...], int]] = [((), 1)]
    for prompt in range(len(lab.world.prompts)):
        more = list(oracle.multisets(lab.world.answers(prompt), size))
        found = [(a + b, orders * ways) for a, orders in found for b, ways in more]
    random = np.random.default_rng(41)
    return [(tuple(int(i) for i in random.permutation(chosen)), orders) for chosen, orders in found]


def mean_gradient(
    lab: Laboratory,
    gradient: Callable[[Batch], np.ndarray],
    size: int,
    given: Callable[[Batch], bool] | None = None,
    logits: np.ndarray | None = None,
) -> np.ndarray:
    """Over all batches of so many rows a prompt, as the old policy draws them, given a condition."""
    p = oracle.row_probability(lab.world, lab.old) * len(lab.world.prompts)
    total, weight = np.zeros_like(lab.old), 0.0
    for numbers, orders in batches(lab, size):
        batch = lab.batch(numbers, logits)
        if given is None or given(batch):
            here = orders * float(np.prod(p[list(numbers)]))
            total, weight = total + here * gradient(batch), weight + here
    assert given is not None or weight == pytest.approx(1, abs=1e-12)
    return total / weight


def leashed(estimator: str, beta: float = BETA) -> PolicyGradient:
    kl = KL.replace("PLACE", "loss").replace("ESTIMATOR", estimator).replace("0.3", str(beta))
    return build_card("reinforce", ("algorithm.advantage.baseline=none", f"algorithm.kl={kl}"))
