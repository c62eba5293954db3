"""Losses per token: what policy and value are pushed towards."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_surrogate(
    ratio: Tensor, advantage: Tensor, low: float, high: float, dual: float | None = None
) -> Tensor:
    """PPO's pessimistic surrogate as a loss, any shape (Schulman et al. 2017, arXiv:1707.06347).

    -min(ratio A, clip(ratio, 1 - low, 1 + high) A). With `dual` = c > 1, a negative advantage costs at
    most -c A: one token of huge ratio cannot dominate (Ye et al. 2020, arXiv:1912.09729).

    >>> clipped_surrogate(torch.tensor([1.5, 0.5]), torch.tensor([1.0, 1.0]), 0.2, 0.2)
    tensor([-1.2000, -0.5000])
    """
    clipped = ratio.clamp(1 - low, 1 + high)
    loss = -torch.minimum(ratio * advantage, clipped * advantage)
    if dual is None:
        return loss
    return torch.where(advantage < 0, torch.minimum(loss, -dual * advantage), loss)


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """0.5 max((V - G)^2, (V_clipped - G)^2), any shape; V_clipped stays within `clip` of the old value.

    `clip=None` is plain half squared error.

    >>> clipped_value_loss(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0), clip=0.2)
    tensor(0.3200)
    """
    plain = (values - returns).square()
    if clip is None:
        return plain / 2
    near = old_values + (values - old_values).clamp(-clip, clip)
    return torch.maximum(plain, (near - returns).square()) / 2
