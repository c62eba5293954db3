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


def capped_weight_loss(logp: Tensor, ratio: Tensor, advantage: Tensor, cap: float) -> Tensor:
    """CISPO's loss -stop_grad(min(ratio, cap)) A log pi, any shape (MiniMax 2025, arXiv:2506.13585).

    The weight is bounded and every token keeps its gradient, where a clipped surrogate drops tokens.

    >>> logp = torch.tensor([-1.0, -2.0])
    >>> capped_weight_loss(logp, torch.tensor([0.5, 9.0]), torch.tensor([1.0, 1.0]), cap=3.0)
    tensor([0.5000, 6.0000])
    """
    return -ratio.detach().clamp(max=cap) * advantage * logp


def row_ratio(log_ratio: Tensor, action: Tensor) -> Tensor:
    """A row's ratio by its mean log-ratio, on each of its action tokens, `[B, T]` (GSPO, arXiv:2507.18071).

    exp(mean over the row's action tokens of log pi / pi_old), the geometric mean of the token ratios;
    1 on other tokens.

    >>> import math
    >>> log_ratio = torch.tensor([[0.0, math.log(2.0), math.log(8.0)]])
    >>> row_ratio(log_ratio, torch.tensor([[False, True, True]]))
    tensor([[1., 4., 4.]])
    """
    kept = torch.where(action, log_ratio, 0)
    mean = kept.sum(-1, keepdim=True) / action.sum(-1, keepdim=True).clamp(min=1)  # [B, 1]
    return torch.where(action, mean, 0).exp()


def overlong_penalty(length: Tensor, limit: int, margin: int) -> Tensor:
    """DAPO's soft punishment of long rows (Yu et al. 2025, arXiv:2503.14476), any shape.

    0 up to limit - margin tokens, then (limit - margin - length) / margin, and never below -1.

    >>> overlong_penalty(torch.tensor([6, 8, 9, 10, 12]), limit=10, margin=2)
    tensor([ 0.0000,  0.0000, -0.5000, -1.0000, -1.0000])
    """
    return ((limit - margin - length) / margin).clamp(min=-1, max=0)


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
