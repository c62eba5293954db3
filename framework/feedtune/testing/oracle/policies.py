"""What a table of logits does in a world: probabilities, visits, entropies and divergences, with gradients.

A policy is a table of logits `[S, V]`, and so is a gradient with respect to it. Everything is written from
d log pi(a) / d logit(b) = [a = b] - pi(b), and summed over all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from feedtune.testing.oracle.world import Floats, Row, World


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities, `[..., V]` to `[..., V]`.

    >>> log_softmax(np.log([1.0, 3.0])).round(4)  # log 1/4 and log 3/4
    array([-1.3863, -0.2877])
    """
    shifted = logits - logits.max(-1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found


def token_logp(logits: Floats, row: Row) -> Floats:
    """log pi of each action token of a row, `[n]`."""
    found: Floats = log_softmax(logits)[row.states, row.chosen]
    return found


def weighted_score(logits: Floats, rows: Sequence[Row], weights: Sequence[Floats]) -> Floats:
    """sum_it w_it d log pi_it / d logits, `[S, V]`, for weights `[n]` of each row's action tokens.

    The gradient of a policy-gradient loss is minus this. One token of probability 1/4, weight 2:

    >>> world = World(vocab_size=2, length=1, prompts=[(0,)])
    >>> weighted_score(np.log([[1.0, 3.0]]), world.rows[:1], [np.array([2.0])])  # 2 (1 - 1/4), 2 (0 - 3/4)
    array([[ 1.5, -1.5]])
    """
    probability = np.exp(log_softmax(logits))
    total = np.zeros_like(logits)
    for row, weight in zip(rows, weights, strict=True):
        for state, token, w in zip(row.states, row.chosen, weight, strict=True):
            total[state, token] += w
            total[state] -= w * probability[state]
    return total


def row_logp(world: World, logits: Floats) -> Floats:
    """log P(row | its prompt) of every row, `[R]`."""
    return np.array([token_logp(logits, row).sum() for row in world.rows])


def row_probability(world: World, logits: Floats) -> Floats:
    """P(row) of every row, its prompt's probability included, `[R]`; they sum to 1."""
    prompts = [row.prompt for row in world.rows]
    found: Floats = world.prompt_probability[prompts] * np.exp(row_logp(world, logits))
    return found


def expected_score(world: World, logits: Floats, weights: Sequence[Floats]) -> Floats:
    """E[sum_t w_t d log pi_t], `[S, V]`: weights `[n]` for each of the world's rows."""
    p = row_probability(world, logits)
    return weighted_score(logits, world.rows, [p[i] * weight for i, weight in enumerate(weights)])


def visits(world: World, logits: Floats) -> Floats:
    """Probability that a row chooses a token in each state, `[S]`."""
    found = np.zeros(len(world.states))
    for p, row in zip(row_probability(world, logits), world.rows, strict=True):
        found[row.states] += p
    return found


def row_entropy(world: World, logits: Floats) -> float:
    """-E[log P(row | prompt)] in nats."""
    return -float(row_probability(world, logits) @ row_logp(world, logits))


def row_entropy_gradient(world: World, logits: Floats) -> Floats:
    """Its gradient, `[S, V]`: -E[log P grad log P]; the 1 that the product rule adds has expectation 0."""
    return expected_score(world, logits, [-_whole(token_logp(logits, row)) for row in world.rows])


def state_entropy(world: World, logits: Floats, visited: Floats | None = None) -> float:
    """sum_s visited(s) H(pi(. | s)) in nats; by default its own visits: the rows' entropy."""
    logp = log_softmax(logits)
    return float(_visited(world, logits, visited) @ -(np.exp(logp) * logp).sum(-1))


def state_entropy_gradient(world: World, logits: Floats, visited: Floats | None = None) -> Floats:
    """Its gradient with the visits frozen, `[S, V]`: visited(s) times -pi (log pi + H)."""
    logp = log_softmax(logits)
    p = np.exp(logp)
    entropy = -(p * logp).sum(-1, keepdims=True)
    found: Floats = _visited(world, logits, visited)[:, None] * -p * (logp + entropy)
    return found


def row_kl(world: World, logits: Floats, reference: Floats) -> float:
    """KL(p, q) of whole rows: E_p[log P(row) - log Q(row)] in nats."""
    return float(row_probability(world, logits) @ (row_logp(world, logits) - row_logp(world, reference)))


def row_kl_gradient(world: World, logits: Floats, reference: Floats) -> Floats:
    """Its gradient, `[S, V]`: E_p[(log P - log Q) grad log P]."""
    weights = [_whole(token_logp(logits, row) - token_logp(reference, row)) for row in world.rows]
    return expected_score(world, logits, weights)


Direction = Literal["forward", "reverse"]
"""Forward: KL(p, q) of policy p from reference q. Reverse: KL(q, p)."""


def token_kl(
    world: World,
    logits: Floats,
    reference: Floats,
    direction: Direction = "forward",
    visited: Floats | None = None,
) -> float:
    """sum_s visited(s) KL at s in nats; by default the policy's own visits, where forward is `row_kl`."""
    p, q = log_softmax(logits), log_softmax(reference)
    first, second = (p, q) if direction == "forward" else (q, p)
    return float(_visited(world, logits, visited) @ (np.exp(first) * (first - second)).sum(-1))


def token_kl_gradient(
    world: World,
    logits: Floats,
    reference: Floats,
    direction: Direction = "forward",
    visited: Floats | None = None,
) -> Floats:
    """Its gradient with the visits frozen, `[S, V]`.

    Forward: visited(s) p (log p/q - KL). Reverse: visited(s) (p - q), a cross-entropy's.
    """
    logp, logq = log_softmax(logits), log_softmax(reference)
    p, q = np.exp(logp), np.exp(logq)
    if direction == "reverse":
        per_state = p - q
    else:
        gap = logp - logq
        per_state = p * (gap - (p * gap).sum(-1, keepdims=True))
    found: Floats = _visited(world, logits, visited)[:, None] * per_state
    return found


def finite_differences(function: Callable[[Floats], float], logits: Floats, step: float = 1e-5) -> Floats:
    """Central differences of a function of a table, of its shape: right to about `step` squared.

    >>> finite_differences(lambda x: float((x**2).sum()), np.array([[1.0, 3.0]])).round(6)
    array([[2., 6.]])
    """
    found = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        nudge = np.zeros_like(logits)
        nudge[place] = step
        found[place] = (function(logits + nudge) - function(logits - nudge)) / (2 * step)
    return found


def _whole(values: Floats) -> Floats:
    """The row's sum at each of its tokens."""
    return np.full(len(values), values.sum())


def _visited(world: World, logits: Floats, visited: Floats | None) -> Floats:
    return visits(world, logits) if visited is None else visited
