"""Off-policy estimates: what a policy would earn, said by a log of what another policy did and earned.

Shapes: n logged responses. Each was said with a probability that is known, its propensity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error."""

    value: float
    error: float  # NaN where one row cannot tell
    rows: int
    effective: float  # rows that as many equal weights would stand for (Kish 1965): (sum w)^2 / sum w^2


def importance_weights(logp: Tensor, propensity: Tensor, clip: float | None = None) -> Tensor:
    """pi(y) / p(y) `[n]`: how much oftener the policy says each response than the one that was logged.

    Args:
        logp: log pi(y) `[n]` of the logged responses under the policy to be valued.
        propensity: p(y) `[n]`, with which they were logged, in (0, 1].
        clip: largest weight (Ionides 2008); of rewards that are never negative the estimate is then too low
            rather than wild. None: no bound, no bias.

    Raises:
        ValueError: a propensity is not in (0, 1]: what was never tried says nothing, and no estimate
            can know what it would have earned.

    >>> import torch
    >>> importance_weights(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.5]))
    tensor([2., 1.])
    """
    wrong = ~((propensity > 0) & (propensity <= 1))
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0]) + 1
        raise ValueError(
            f"row {row}: a propensity is above 0 and at most 1, got {float(propensity[row - 1])}"
        )
    weight = (logp - propensity.log()).exp()
    return weight if clip is None else weight.clamp(max=clip)


def inverse_propensity(reward: Tensor, weight: Tensor) -> Estimate:
    """mean(w r): unbiased where no weight is clipped (Horvitz and Thompson 1952).

    Its squared error is the unbiased estimate of the variance of that mean.

    Args:
        reward: `[n]` what each logged response earned.
        weight: `[n]`, see `importance_weights`.

    >>> import torch
    >>> inverse_propensity(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0])).value
    1.0
    """
    earned = (weight * reward).double()
    return Estimate(float(earned.mean()), _error(earned), len(earned), _effective(weight))


def self_normalized(reward: Tensor, weight: Tensor) -> Estimate:
    """sum(w r) / sum(w): steadier, and never outside of what was earned; its bias goes with 1 / n.

    Adding a constant to all rewards adds it to the estimate, which `inverse_propensity` does only on average
    (Swaminathan and Joachims 2015b, "The self-normalized estimator"). The error is that of the delta method,
    sqrt(sum w^2 (r - value)^2) / sum w (Owen 2013, section 9.2).

    >>> import torch
    >>> self_normalized(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 1.0])).value
    0.75
    """
    total = weight.double().sum()
    value = (weight.double() * reward).sum() / total
    error = (weight.double() * (reward - value)).square().sum().sqrt() / total
    lone = len(reward) < 2
    return Estimate(float(value), math.nan if lone else float(error), len(reward), _effective(weight))


def _error(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _effective(weight: Tensor) -> float:
    squares = float(weight.double().square().sum())
    return float(weight.double().sum()) ** 2 / squares if squares else 0.0
