"""Published policy-gradient algorithms as weights: a loss's gradient is -sum_it w_it grad log pi_it.

Each function takes a batch and returns w, one array `[n]` a row, with the loss's own mean in it. `beta` is a
KL coefficient; where it stands is each algorithm's own. `Batch.loss_gradient(w)` is the gradient of the loss,
and `expected_gradient` its expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Literal

import numpy as np

from feedtune.testing.oracle.batches import (
    Aggregation,
    Batch,
    Estimator,
    Ragged,
    added,
    aggregate,
    clipped,
    kl_in_loss,
    mean_of_all,
    mean_of_others,
    normalised_in_group,
    penalised,
    row_totals,
    spread,
    to_go,
    whitened,
)
from feedtune.testing.oracle.policies import row_probability
from feedtune.testing.oracle.values import gae
from feedtune.testing.oracle.world import Floats, World

Baseline = Literal["none", "mean", "leave_one_out", "running", "value"]
Credit = Literal["to_go", "row"]


def reinforce(
    batch: Batch,
    baseline: Baseline = "none",
    *,
    gamma: float = 1.0,
    running: float = 0.0,
    values: Floats | None = None,
    beta: float = 0.0,
    grouped: bool = False,
    credit: Credit = "to_go",
) -> Ragged:
    """gamma^t (G_t - b), rows averaged (Williams 1992); k1 in the reward.

    Credit "row" gives every token the whole row's return, G_0 - b.
    b is 0, the mean return, the mean return of the others, a given number, or V(s_t) of `values` `[S]`, with
    which truncated rows go on. `grouped`: rows are compared with those of their own group only.
    """
    after = None
    if values is not None:
        after = [0.0 if row.done else float(values[row.final]) for row in batch.rows]
    gains = to_go(penalised(batch, beta), gamma, after)
    totals = row_totals(batch, beta, gamma)
    found = []
    for i, row in enumerate(batch.rows):
        compared: float | Floats = {"none": 0.0, "running": running}.get(baseline, 0.0)
        if baseline == "mean":
            compared = mean_of_all(batch, totals, i, grouped)
        elif baseline == "leave_one_out":
            compared = mean_of_others(batch, totals, i, grouped)
        elif baseline == "value":
            assert values is not None
            compared = values[row.states]
        found.append(_credited(gains[i], compared, gamma, credit))
    return aggregate(batch, found, "row_sum")


def a2c(
    batch: Batch,
    values: Floats,
    *,
    gamma: float = 1.0,
    lam: float = 1.0,
    beta: float = 0.0,
    aggregation: Aggregation = "row_sum",
) -> Ragged:
    """Generalized advantages of any values `[S]`, not whitened (Mnih et al. 2016); k1 in the reward."""
    return aggregate(batch, advantages_of(batch, values, gamma, lam, beta), aggregation)


def ppo(
    batch: Batch,
    values: Floats,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
    low: float = 0.2,
    high: float = 0.2,
    dual: float | None = None,
    beta: float = 0.0,
    whiten: bool = True,
) -> Ragged:
    """Whitened generalized advantages, clipped ratio, token mean (Schulman et al. 2017); k1 in the reward."""
    advantage = advantages_of(batch, values, gamma, lam, beta)
    advantage = whitened(advantage) if whiten else advantage
    return aggregate(batch, clipped(batch.ratio, advantage, low, high, dual), "token_mean")


def advantages_of(batch: Batch, values: Floats, gamma: float, lam: float, beta: float) -> Ragged:
    """Generalized advantages of rewards less the KL penalty."""
    found = []
    for row, shaped in zip(batch.rows, penalised(batch, beta), strict=True):
        penalty = np.zeros(len(row.tokens))
        penalty[np.array(row.action, bool)] = shaped - row.earned
        found.append(gae(replace(row, reward=row.reward + penalty), values, gamma, lam))
    return found


def rloo(batch: Batch, *, beta: float = 0.0) -> Ragged:
    """R_i less the mean of the group's others, summed over tokens, averaged over rows (Ahmadian 2024).

    R_i is the whole row's return, with k1 summed into it before the baseline.
    """
    totals = row_totals(batch, beta)
    advantage = [totals[i] - mean_of_others(batch, totals, i) for i in range(len(totals))]
    return aggregate(batch, spread(batch, advantage), "row_sum")


def grpo(
    batch: Batch,
    *,
    eps: float = 1e-4,
    low: float = 0.2,
    high: float = 0.2,
    beta: float = 0.0,
    estimator: Estimator = "k3",
) -> Ragged:
    """(R - group mean) / (group deviation + eps), clipped, mean over tokens, then rows (Shao et al. 2024).

    A group whose raw scores are all equal has advantage 0. The KL stands in the loss, under the same mean.
    """
    advantage = spread(batch, normalised_in_group(batch, row_totals(batch), eps))
    weights = clipped(batch.ratio, advantage, low, high)
    return aggregate(batch, _with_kl(batch, weights, beta, estimator), "row_mean")


def dr_grpo(
    batch: Batch,
    *,
    length: float,
    low: float = 0.2,
    high: float = 0.2,
    beta: float = 0.0,
    estimator: Estimator = "k3",
) -> Ragged:
    """R - group mean, clipped, summed over tokens, divided by a constant length (Liu et al. 2025)."""
    totals = row_totals(batch)
    advantage = [totals[i] - mean_of_all(batch, totals, i) for i in range(len(totals))]
    weights = clipped(batch.ratio, spread(batch, advantage), low, high)
    return aggregate(batch, _with_kl(batch, weights, beta, estimator), "constant", length)


def overlong(length: int, limit: int, cache: int) -> float:
    """DAPO's soft penalty: 0 up to limit - cache, then falling to -1 at the limit, and -1 beyond it.

    >>> [overlong(n, limit=8, cache=4) for n in (4, 5, 8, 9)]
    [0.0, -0.25, -1.0, -1.0]
    """
    if length <= limit - cache:
        return 0.0
    return max((limit - cache - length) / cache, -1.0)


def dapo(
    batch: Batch,
    *,
    limit: int | None = None,
    cache: int | None = None,
    eps: float = 1e-4,
    low: float = 0.2,
    high: float = 0.28,
) -> Ragged:
    """GRPO's advantage, clipped higher above than below, mean over all tokens (Yu et al. 2025). No KL.

    The overlong penalty (none without `limit` and `cache`) joins the scores before the baseline; whether a
    group varies is asked of the raw scores.
    """
    totals = row_totals(batch)
    if limit is not None and cache is not None:
        totals = [
            total + overlong(len(row.states), limit, cache)
            for total, row in zip(totals, batch.rows, strict=True)
        ]
    advantage = spread(batch, normalised_in_group(batch, totals, eps))
    return aggregate(batch, clipped(batch.ratio, advantage, low, high), "token_mean")


def gspo(
    batch: Batch,
    *,
    eps: float = 1e-4,
    low: float = 3e-4,
    high: float = 4e-4,
    beta: float = 0.0,
    estimator: Estimator = "k3",
) -> Ragged:
    """One ratio a row, s = exp(mean log-ratio), with its gradient s/n a token; rows averaged (Zheng 2025)."""
    advantage = normalised_in_group(batch, row_totals(batch), eps)
    found = []
    for ratio, a in zip(batch.ratio, advantage, strict=True):
        s = np.exp(np.log(ratio).mean(keepdims=True)) if len(ratio) else ratio
        weight = clipped([s], [np.full(len(s), a)], low, high)[0]
        found.append(np.full(len(ratio), weight.sum()))  # row_mean divides by n
    return aggregate(batch, _with_kl(batch, found, beta, estimator), "row_mean")


def cispo(batch: Batch, *, cap: float, eps: float = 1e-4) -> Ragged:
    """min(ratio, cap), held, times GRPO's advantage; mean over all tokens (MiniMax 2025)."""
    advantage = spread(batch, normalised_in_group(batch, row_totals(batch), eps))
    weights = [np.minimum(r, cap) * a for r, a in zip(batch.ratio, advantage, strict=True)]
    return aggregate(batch, weights, "token_mean")


def reinforce_pp(
    batch: Batch, *, gamma: float = 1.0, low: float = 0.2, high: float = 0.2, beta: float = 0.0
) -> Ragged:
    """Return-to-go of rewards less k1, normalised over the batch's tokens, clipped, token mean (Hu 2025)."""
    advantage = whitened(to_go(penalised(batch, beta), gamma))
    return aggregate(batch, clipped(batch.ratio, advantage, low, high), "token_mean")


def remax(
    batch: Batch,
    greedy_scores: Sequence[float],
    *,
    gamma: float = 1.0,
    beta: float = 0.0,
    credit: Credit = "row",
) -> Ragged:
    """The row's return less the score of the prompt's greedy row, rows averaged (Li et al. 2023)."""
    gains = to_go(penalised(batch, beta), gamma)
    found = [_credited(g, best, gamma, credit) for g, best in zip(gains, greedy_scores, strict=True)]
    return aggregate(batch, found, "row_sum")


def expected_gradient(
    world: World,
    old: Floats,
    size: int,
    gradient: Callable[[tuple[int, ...]], Floats],
    prompts: Sequence[int] | None = None,
    given: Callable[[tuple[int, ...]], bool] | None = None,
) -> Floats:
    """The mean of a gradient over all batches of `size` rows, each as likely as `old` draws it.

    Args:
        world: whose rows are drawn.
        old: logits `[S, V]` of the policy that draws.
        size: rows of a batch.
        gradient: from the numbers of a batch's rows.
        prompts: the prompt of each row, which is then given; None: prompts are drawn too.
        given: only batches of which this is true; the rest is left out and the mean taken over these.
    """
    p = row_probability(world, old)
    choices = [range(len(world.rows))] * size if prompts is None else [world.answers(n) for n in prompts]
    share = 1.0 if prompts is None else float(np.prod(world.prompt_probability[list(prompts)]))
    total, weight = np.zeros_like(old), 0.0
    for batch in product(*choices):
        if given is None or given(batch):
            here = float(np.prod(p[list(batch)])) / share
            total, weight = total + here * gradient(batch), weight + here
    return total / weight


def _credited(gains: Floats, baseline: float | Floats, gamma: float, credit: Credit) -> Floats:
    """gamma^t (G_t - b), or G_0 - b at every token."""
    if credit == "row":
        return np.full(len(gains), gains[0] if len(gains) else 0.0) - baseline
    return np.asarray(gamma ** np.arange(len(gains)) * (gains - baseline))


def _with_kl(batch: Batch, weights: Ragged, beta: float, estimator: Estimator) -> Ragged:
    return weights if beta == 0 else added(weights, kl_in_loss(batch, estimator, beta))
