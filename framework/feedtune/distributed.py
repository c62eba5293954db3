"""Reductions over ranks that are the identity where there is one process."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum over all ranks, the same on each; no gradient flows through the other ranks' part.

    >>> import torch
    >>> sum_over_ranks(torch.tensor(2.0))
    tensor(2.)
    """
    if not is_distributed():
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def max_over_ranks(values: Tensor) -> Tensor:
    """The largest of each value over all ranks, the same on each.

    >>> import torch
    >>> max_over_ranks(torch.tensor(2.0))
    tensor(2.)
    """
    if not is_distributed():
        return values
    largest = values.detach().clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def gather_objects(value: Any) -> list[Any]:
    """The value of every rank, in the order of ranks.

    >>> gather_objects("mine")
    ['mine']
    """
    if not is_distributed():
        return [value]
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered
