"""What rows, states and tokens are worth: returns, values, the best policy and the best leashed one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from feedtune.testing.oracle.policies import expected_score, log_softmax, row_logp, row_probability
from feedtune.testing.oracle.world import NOWHERE, Floats, Ints, Row, World


def returns(row: Row, gamma: float = 1.0, values: Floats | None = None) -> Floats:
    """Discounted return from each action token on, `[n]`: sum_{k >= t} gamma^(k-t) r_k.

    A truncated row goes on with gamma^(n-t) times the value of the state it was left in, if `values` `[S]`
    are given. Observation tokens take no time.
    """
    earned, n = row.earned, len(row.states)
    rest = 0.0 if row.done or values is None else float(values[row.final])
    found = [
        sum(gamma ** (k - t) * earned[k] for k in range(t, n)) + gamma ** (n - t) * rest for t in range(n)
    ]
    return np.array(found, float)


def expected_return(world: World, logits: Floats, gamma: float = 1.0) -> float:
    """J: the mean discounted return of a row. Truncated rows end with the world's `beyond`."""
    whole = [returns(row, gamma, world.beyond)[0] for row in world.rows]
    return float(row_probability(world, logits) @ np.array(whole))


def return_gradient(world: World, logits: Floats, gamma: float = 1.0) -> Floats:
    """The gradient of J, `[S, V]`: sum_rows P(row) R(row) grad log P(row)."""
    whole = [returns(row, gamma, world.beyond)[0] for row in world.rows]
    return expected_score(
        world, logits, [np.full(len(row.states), r) for row, r in zip(world.rows, whole, strict=True)]
    )


def state_values(world: World, logits: Floats, gamma: float = 1.0) -> Floats:
    """V `[S]`: the mean return-to-go over all rows that pass through a state, given that they do."""
    weight, worth = np.zeros(len(world.states)), np.zeros(len(world.states))
    for p, row in zip(row_probability(world, logits), world.rows, strict=True):
        weight[row.states] += p
        worth[row.states] += p * returns(row, gamma, world.beyond)
    return np.where(world.deciding, worth / np.where(world.deciding, weight, 1.0), world.beyond)


def action_values(world: World, logits: Floats, gamma: float = 1.0) -> Floats:
    """Q `[S, V]`: the same for rows that choose the token there; 0 where truncated rows were left."""
    weight, worth = np.zeros_like(world.reward), np.zeros_like(world.reward)
    for p, row in zip(row_probability(world, logits), world.rows, strict=True):
        weight[row.states, row.chosen] += p
        worth[row.states, row.chosen] += p * returns(row, gamma, world.beyond)
    return np.where(world.deciding[:, None], worth / np.where(weight > 0, weight, 1.0), 0.0)


def advantages(world: World, logits: Floats, gamma: float = 1.0) -> Floats:
    """Q - V `[S, V]`; 0 where truncated rows were left."""
    gap = action_values(world, logits, gamma) - state_values(world, logits, gamma)[:, None]
    return np.where(world.deciding[:, None], gap, 0.0)


def gae(row: Row, values: Floats, gamma: float = 1.0, lam: float = 1.0) -> Floats:
    """Generalized advantages of a row for any values `[S]`, `[n]`: the double sum, term by term.

    A_t = sum_{k >= t} (gamma lam)^(k-t) (r_k + gamma V(s_{k+1}) - V(s_k)), where the state after the last
    action token is worth 0 if the row is done and its value if it was truncated.
    """
    n = len(row.states)
    after = [values[state] for state in row.states[1:]] + [0.0 if row.done else values[row.final]]
    found = np.zeros(n)
    for t in range(n):
        for k in range(t, n):
            delta = row.earned[k] + gamma * after[k] - values[row.states[k]]
            found[t] += (gamma * lam) ** (k - t) * delta
    return found


def _backwards(world: World, value_of: Callable[[Floats, int], float], gamma: float) -> tuple[Floats, Floats]:
    """V `[S]` and Q `[S, V]` with V(s) = value_of(Q(s, .), s), from the ends of the rows to their beginnings.

    A state's number is below those of all that follow it.
    """
    values, q = world.beyond.copy(), np.zeros_like(world.reward)
    for state in reversed(np.flatnonzero(world.deciding)):
        following = world.next_state[state]
        later = np.where(following == NOWHERE, 0.0, values[following])
        q[state] = world.reward[state] + gamma * later
        values[state] = value_of(q[state], int(state))
    return values, q


def optimal_values(world: World, gamma: float = 1.0) -> tuple[Floats, Floats]:
    """V* `[S]` and Q* `[S, V]`: of the policy that takes the best token everywhere."""
    return _backwards(world, lambda q, _: float(q.max()), gamma)


def soft_values(
    world: World, temperature: float, gamma: float = 1.0, prior: Floats | None = None
) -> tuple[Floats, Floats]:
    """Soft V `[S]` and Q `[S, V]`: V = temperature log sum_a prior(a) exp(Q(a) / temperature).

    `prior` are the logits `[S, V]` of a policy; None counts every token once (log-sum-exp).
    """
    weight = np.zeros_like(world.reward) if prior is None else log_softmax(prior)
    return _backwards(
        world,
        lambda q, state: temperature * float(np.logaddexp.reduce(weight[state] + q / temperature)),
        gamma,
    )


def greedy(q: Floats) -> Ints:
    """The best token in each state, `[S, V]` to `[S]`; the first one of several."""
    found: Ints = q.argmax(-1)
    return found


def greedy_row(world: World, logits: Floats, prompt: int = 0) -> Row:
    """The row in which every token is the most probable one."""
    best = greedy(logits)
    return next(
        world.rows[i]
        for i in world.answers(prompt)
        if np.array_equal(best[world.rows[i].states], world.rows[i].chosen)
    )


def soft_optimal(world: World, reference: Floats, temperature: float) -> Floats:
    """The rows' probabilities `[R]` that maximise E[R] - temperature KL(p, reference), prompt by prompt.

    reference(row) exp(R(row) / temperature) / Z(prompt), times the prompt's probability.
    """
    scores = np.array([returns(row, 1.0, world.beyond)[0] for row in world.rows])
    tilted = row_logp(world, reference) + scores / temperature
    found = np.zeros(len(world.rows))
    for prompt, p in enumerate(world.prompt_probability):
        rows = world.answers(prompt)
        found[rows] = p * np.exp(log_softmax(tilted[rows]))
    return found


def soft_optimal_logits(world: World, reference: Floats, temperature: float) -> Floats:
    """The same as a policy `[S, V]`: log reference + soft Q / temperature."""
    _, q = soft_values(world, temperature, prior=reference)
    found: Floats = log_softmax(reference) + q / temperature
    return found


def expectile(values: Floats, probability: Floats, level: float) -> float:
    """The m with level E[(x - m)+] = (1 - level) E[(m - x)+], of a discrete distribution `[k]`.

    Level 1/2 is the mean, level 1 (in the limit) the largest value.

    >>> expectile(np.array([0.0, 1.0]), np.array([0.5, 0.5]), 0.75)  # .75 (1 - m) = .25 m
    0.75
    """
    order = np.argsort(values)
    x, p = np.asarray(values, float)[order], np.asarray(probability, float)[order]
    for below in range(1, len(x) + 1):  # the values that lie at or below m
        weight = p * np.where(np.arange(len(x)) < below, 1 - level, level)
        m = float(weight @ x / weight.sum())
        if below == len(x) or m <= x[below]:
            return m
    raise ValueError("an expectile needs at least one value")
