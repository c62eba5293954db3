"""Batches of rows, and the parts that policy-gradient losses are made of, one row and token at a time.

Written with loops over rows, against the definitions, so that no mask, shape or broadcast is shared with the
code under test. A `Ragged` holds one array `[n]` for each row: a number for each of its action tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from feedtune.testing.oracle.policies import log_softmax, token_logp, weighted_score
from feedtune.testing.oracle.world import Floats, Row

Ragged = list[Floats]
Aggregation = Literal["row_sum", "row_mean", "token_mean", "constant"]
Estimator = Literal["k2", "k2_row", "k3", "k3_token_ratio", "k3_prefix_ratio", "k3_row_ratio"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows that one optimiser step sees, and the policies that it speaks of, as logits `[S, V]`.

    Args:
        rows: of one world.
        logits: theta, at which the gradient is taken.
        old: theta_old, which drew the rows and which ratios divide by; None: theta.
        reference: what a KL penalty compares with.
        group: a number for each row; None: its prompt's.
    """

    rows: Sequence[Row]
    logits: Floats
    old: Floats | None = None
    reference: Floats | None = None
    group: Sequence[int] | None = None

    @property
    def groups(self) -> list[int]:
        """Each row's group."""
        return [row.prompt for row in self.rows] if self.group is None else list(self.group)

    @cached_property
    def logp(self) -> Ragged:
        """log pi under theta."""
        return [token_logp(self.logits, row) for row in self.rows]

    @cached_property
    def old_logp(self) -> Ragged:
        """log pi under theta_old."""
        return self.logp if self.old is None else [token_logp(self.old, row) for row in self.rows]

    @cached_property
    def ref_logp(self) -> Ragged:
        """log pi under the reference."""
        if self.reference is None:
            raise ValueError("a KL penalty needs a reference")
        return [token_logp(self.reference, row) for row in self.rows]

    @cached_property
    def ratio(self) -> Ragged:
        """pi / pi_old."""
        return [np.exp(new - old) for new, old in zip(self.logp, self.old_logp, strict=True)]

    @property
    def token_count(self) -> int:
        """Action tokens in all rows."""
        return sum(len(row.states) for row in self.rows)

    @property
    def row_count(self) -> int:
        """Rows with action tokens."""
        return sum(len(row.states) > 0 for row in self.rows)

    def entropy_gradient(self, weights: Ragged) -> Floats:
        """sum_it w_it grad H(pi(. | s_it)) at theta, `[S, V]`: of an entropy bonus, visited states held."""
        logp = log_softmax(self.logits)
        p = np.exp(logp)
        slope = -p * (logp - (p * logp).sum(-1, keepdims=True))  # -pi (log pi + H)
        total = np.zeros_like(self.logits)
        for row, weight in zip(self.rows, weights, strict=True):
            for state, w in zip(row.states, weight, strict=True):
                total[state] += w * slope[state]
        return total

    def loss_gradient(self, weights: Ragged) -> Floats:
        """-sum_it w_it grad log pi_it at theta, `[S, V]`: the gradient of a loss with these weights."""
        return -weighted_score(self.logits, self.rows, weights)


def penalised(batch: Batch, beta: float) -> Ragged:
    """Rewards of the action tokens less beta (log pi_old - log pi_ref): k1 of the policy that acted."""
    if beta == 0:
        return [row.earned for row in batch.rows]
    kl = [old - ref for old, ref in zip(batch.old_logp, batch.ref_logp, strict=True)]
    return [row.earned - beta * k1 for row, k1 in zip(batch.rows, kl, strict=True)]


def to_go(rewards: Ragged, gamma: float = 1.0, after: Sequence[float] | None = None) -> Ragged:
    """sum_{k >= t} gamma^(k-t) r_k, and gamma^(n-t) times what comes after the row.

    >>> to_go([np.array([1.0, 2.0])], gamma=0.5, after=[4.0])  # 1 + .5 2 + .25 4, 2 + .5 4
    [array([3., 4.])]
    """
    rest = [0.0] * len(rewards) if after is None else after
    return [
        np.array([discount(r[t:], gamma) + gamma ** (len(r) - t) * last for t in range(len(r))], float)
        for r, last in zip(rewards, rest, strict=True)
    ]


def discount(rewards: Floats, gamma: float) -> float:
    """r_0 + gamma r_1 + gamma^2 r_2 + ..."""
    return float(sum(gamma**k * r for k, r in enumerate(rewards)))


def row_totals(batch: Batch, beta: float = 0.0, gamma: float = 1.0) -> list[float]:
    """Each row's return from its first action on; a row without actions keeps its score."""
    rewards = penalised(batch, beta)
    return [discount(r, gamma) if len(r) else row.score for row, r in zip(batch.rows, rewards, strict=True)]


def spread(batch: Batch, per_row: Sequence[float]) -> Ragged:
    """Each row's number at each of its action tokens."""
    return [np.full(len(row.states), value) for row, value in zip(batch.rows, per_row, strict=True)]


def peers(batch: Batch, i: int, grouped: bool = True) -> list[int]:
    """The scored rows that row i is compared with, itself included if it is scored."""
    groups = batch.groups
    return [j for j, row in enumerate(batch.rows) if row.scored and (not grouped or groups[j] == groups[i])]


def mean_of_others(batch: Batch, totals: Sequence[float], i: int, grouped: bool = True) -> float:
    """The mean total of the other scored rows; 0 where there is none."""
    others = [totals[j] for j in peers(batch, i, grouped) if j != i]
    return sum(others) / len(others) if others else 0.0


def mean_of_all(batch: Batch, totals: Sequence[float], i: int, grouped: bool = True) -> float:
    """The mean total of the scored rows, row i included."""
    all_of_them = [totals[j] for j in peers(batch, i, grouped)]
    return sum(all_of_them) / len(all_of_them) if all_of_them else 0.0


def bessel(values: Sequence[float]) -> float:
    """Standard deviation of a sample (n - 1); 0 of a single value.

    >>> bessel([1.0, 3.0]) ** 2  # (1 + 1) / 1
    2.0000000000000004
    """
    return 0.0 if len(values) < 2 else float(np.std(values, ddof=1))


def normalised_in_group(batch: Batch, totals: Sequence[float], eps: float) -> list[float]:
    """(R - group mean) / (group deviation + eps); 0 in groups whose raw scores are all equal."""
    found = []
    for i in range(len(batch.rows)):
        group = peers(batch, i)
        if not group or not varied(batch, i):
            found.append(0.0)
        else:
            deviation = bessel([totals[j] for j in group])
            found.append((totals[i] - mean_of_all(batch, totals, i)) / (deviation + eps))
    return found


def varied(batch: Batch, i: int) -> bool:
    """Whether the raw scores of row i's group differ."""
    raw = [batch.rows[j].score for j in peers(batch, i)]
    return len(raw) > 0 and max(raw) != min(raw)


def whitened(values: Ragged, eps: float = 1e-8) -> Ragged:
    """(A - mean) / (deviation + eps) over all action tokens of all rows; a single token becomes 0."""
    everything = [v for row in values for v in row]
    if len(everything) < 2:
        return [np.zeros(len(row)) for row in values]
    mean, deviation = sum(everything) / len(everything), bessel(everything)
    return [(row - mean) / (deviation + eps) for row in values]


def clipped(ratio: Ragged, advantage: Ragged, low: float, high: float, dual: float | None = None) -> Ragged:
    """d min(ratio A, clip(ratio) A) / d log pi: ratio A where the ratio itself is the smaller, else 0.

    A gain pays up to ratio 1 + high, a loss down to 1 - low; `dual` c ends a loss at ratio c.

    >>> up, down = np.array([0.5, 1.5]), np.array([0.5, 1.5])
    >>> clipped([up, down], [np.ones(2), -np.ones(2)], 0.2, 0.2)
    [array([0.5, 0. ]), array([ 0. , -1.5])]
    """

    def weight(r: float, a: float) -> float:
        gains = a >= 0 and r <= 1 + high
        loses = a < 0 and r >= 1 - low and (dual is None or r <= dual)
        return r * a if gains or loses else 0.0

    return [
        np.array([weight(r, a) for r, a in zip(*row, strict=True)], float)
        for row in zip(ratio, advantage, strict=True)
    ]


def kl_in_loss(batch: Batch, estimator: Estimator, beta: float) -> Ragged:
    """Weights of beta times an estimate of the KL that stands in the loss; k1 = log pi - log pi_ref.

    - k2 = k1^2 / 2: -k1; k2_row, of the row's summed k1: minus that sum;
    - k3 = exp(-k1) - 1 + k1: -(1 - exp(-k1));
    - k3 times the token's ratio: -ratio k1, since the ratio's own derivative adds k3;
    - k3 times the ratio of all tokens up to it: -(that ratio (1 - exp(-k1)) + the sum of ratio k3 to go);
    - k3 times the row's ratio: minus the row's ratio times (1 - exp(-k1) + the sum of k3).
    """
    found = []
    for logp, ref, ratio in zip(batch.logp, batch.ref_logp, batch.ratio, strict=True):
        k1 = logp - ref
        k3, prefix = np.exp(-k1) - 1 + k1, np.array([ratio[: t + 1].prod() for t in range(len(ratio))])
        gradient = {
            "k2": k1,
            "k2_row": np.full(len(k1), k1.sum()),
            "k3": 1 - np.exp(-k1),
            "k3_token_ratio": ratio * k1,
            "k3_prefix_ratio": prefix * (1 - np.exp(-k1)) + to_go([prefix * k3])[0],
            "k3_row_ratio": ratio.prod() * (1 - np.exp(-k1) + k3.sum()),
        }[estimator]
        found.append(-beta * gradient)
    return found


def aggregate(
    batch: Batch, weights: Ragged, aggregation: Aggregation, constant: float | None = None
) -> Ragged:
    """Weights as the mean that a loss takes leaves them.

    "row_sum": summed over tokens, averaged over rows. "row_mean": averaged over tokens, then rows.
    "token_mean": averaged over the tokens of all rows. "constant": summed over tokens, divided by a constant
    length, averaged over rows.
    """
    rows, tokens = max(batch.row_count, 1), max(batch.token_count, 1)
    if aggregation == "constant" and constant is None:
        raise ValueError("a constant length is needed")

    def divisor(n: int) -> float:
        return {
            "row_sum": rows,
            "row_mean": rows * n,
            "token_mean": tokens,
            "constant": rows * (constant or 1.0),
        }[aggregation]

    return [w / divisor(len(w)) if len(w) else w for w in weights]


def added(first: Ragged, second: Ragged) -> Ragged:
    """Row by row."""
    return [a + b for a, b in zip(first, second, strict=True)]
