"""Means and whitening over the tokens that count, across ranks where there are several."""

from __future__ import annotations

import torch
from torch import Tensor

from feedtune.distributed import sum_over_ranks


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the marked values, of any shape; 0 where none is marked.

    >>> masked_mean(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([True, True, False]))
    tensor(1.5000)
    """
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def whiten(values: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Marked values shifted and scaled to mean 0 and standard deviation 1; 0 elsewhere.

    The deviation is the sample's (Bessel: n - 1). Statistics are taken over all ranks. One marked value
    alone has no deviation and becomes 0.

    >>> whiten(torch.tensor([1.0, 3.0, 99.0]), torch.tensor([True, True, False]))
    tensor([-0.7071,  0.7071,  0.0000])
    """
    # In float64: in float32 the mean of equal values is off by a rounding error, which whitening blows up.
    kept = torch.where(mask, values, 0).double()
    count, total = sum_over_ranks(torch.stack([mask.sum().double(), kept.sum()])).unbind()
    mean = total / count.clamp(min=1)
    centred = torch.where(mask, kept - mean, 0)
    variance = sum_over_ranks(centred.square().sum()) / (count - 1).clamp(min=1)
    return (centred / (variance.sqrt() + eps)).to(values.dtype)
