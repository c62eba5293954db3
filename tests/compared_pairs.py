"""All ordered pairs of a tiny world's responses, each as an algorithm of preferences sees it.

What is expected of them is worked out in numpy or from `World`'s own tables; the algorithms see one pair a
time, weighted by how often it is compared and how likely it is to be labelled so.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feedtune.contracts import Algorithm
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy

EVERY_LOSS = ["sigmoid", "cdpo", "hinge", "ipo"]
Weights = np.ndarray[Any, np.dtype[np.float64]]  # [7, 7]: of "the row's response beats the column's"


def pair(world: Any, chosen: int, rejected: int, scores: Sequence[float] = (1.0, 0.0)) -> Experience:
    """Two of the seven responses as one group."""
    said = [world.responses[chosen], world.responses[rejected]]
    return from_rows(
        [[1, *r] for r in said], [[False, *[True] * len(r)] for r in said], scores=scores, group=[0, 0]
    )


class Compared:
    """All ordered pairs of different responses, ready for the loss; those without weight left out."""

    def __init__(self, world: Any, algorithm: Algorithm, policy: Policy, weights: Weights) -> None:
        self.algorithm, self.policy = algorithm, policy
        self.pairs = [
            (float(weights[a, b]), self.ready(world, a, b))
            for a, b in itertools.permutations(range(7), 2)
            if weights[a, b] > 0
        ]

    def ready(self, world: Any, chosen: int, rejected: int) -> Experience:
        exp = world.complete(pair(world, chosen, rejected), self.algorithm, self.policy)
        exp, _ = self.algorithm.prepare(exp, self.policy)
        return exp

    def loss(self) -> Tensor:
        """The exact expected loss, with gradient."""
        losses = [(w, self.algorithm.loss(exp, self.policy)) for w, exp in self.pairs]
        return torch.stack([w * loss.sum / loss.denominator for w, loss in losses]).sum()

    def gradient(self) -> Tensor:
        trained = list(self.policy.parameters())
        found = torch.autograd.grad(self.loss(), trained, allow_unused=True)
        return torch.cat([g.flatten() for g in found if g is not None])

    def minimise(self) -> None:
        """To the bottom: the losses are convex in what the tables hold."""
        options = {"max_iter": 300, "tolerance_grad": 1e-13, "tolerance_change": 1e-16}
        optimizer = torch.optim.LBFGS(self.policy.parameters(), line_search_fn="strong_wolfe", **options)

        def closure() -> float:
            optimizer.zero_grad()
            loss = self.loss()
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        optimizer.step(closure)


def sigmoid(values: Any) -> Any:
    return 1 / (1 + np.exp(-values))


def bradley_terry(rewards: Any) -> Weights:
    """P(the row's response is preferred to the column's)."""
    return np.asarray(sigmoid(rewards[:, None] - rewards[None, :]))


def compared_by(mu: Any) -> Weights:
    """How often two responses meet, if both come from mu."""
    return np.asarray(mu[:, None] * mu[None, :])


def some_distribution(seed: int = 3) -> Any:
    p = np.random.default_rng(seed).uniform(0.5, 2.0, 7)
    return p / p.sum()


def reference_logps(world: Any, policy: Policy) -> Any:
    return world.row_logps(policy, world.reference_weights).numpy()


def set_policy(policy: Policy, logits: Any) -> None:
    """Make P(response) proportional to exp(logits) `[7]`, by the conditionals of each state's own row."""
    p = torch.as_tensor(logits, dtype=torch.float64).softmax(-1)
    zero, one = p[1:4], p[4:7]
    table = policy.backbone.table.weight.data  # type: ignore[union-attr, operator]
    # Contexts as in World.distributions: older + 4 newer, symbols are token + 1, 0 where there is none.
    table[8] = torch.stack([zero.sum(), one.sum(), p[0]]).log() * policy.temperature
    table[6], table[10] = zero.log() * policy.temperature, one.log() * policy.temperature


def close(found: Any, expected: Any, atol: float) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=atol, rtol=0)


def logps(world: Any, policy: Policy) -> Any:
    return world.row_logps(policy).detach().numpy()


def normalised(logits: Any) -> Any:
    return logits - np.log(np.exp(logits).sum())
