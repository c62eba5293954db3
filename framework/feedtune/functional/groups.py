"""Statistics of rows among their peers: the rows that answer the same prompt, or all rows of the rollout.

Every function takes values `[B]`, which of them count `[B]` bool (rows without a score do not), and the
number of each row's group `[B]` int64, or None where all rows, on all ranks, are one group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from feedtune.distributed import max_over_ranks, sum_over_ranks


def peer_sum(values: Tensor, counted: Tensor, group: Tensor | None) -> Tensor:
    """Sum of the counted values of each row's group, `[B]`.

    >>> peer_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([True, True, True]), torch.tensor([0, 0, 1]))
    tensor([3., 3., 4.])
    """
    kept = torch.where(counted, values, 0)
    if group is None:
        return sum_over_ranks(kept.sum()).expand(len(values))
    _, index = torch.unique(group, return_inverse=True)
    return torch.zeros_like(kept).index_add(0, index, kept)[index]


def peer_mean(values: Tensor, counted: Tensor, group: Tensor | None, leave_one_out: bool = False) -> Tensor:
    """Mean of the counted values of each row's group, with or without the row itself, `[B]`; 0 of none.

    >>> values, all_three = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([True, True, True])
    >>> peer_mean(values, all_three, None)
    tensor([3., 3., 3.])
    >>> peer_mean(values, all_three, None, leave_one_out=True)
    tensor([4.0000, 3.5000, 1.5000])
    """
    total = peer_sum(values, counted, group)
    count = peer_sum(torch.ones_like(values), counted, group)
    if leave_one_out:
        total, count = total - torch.where(counted, values, 0), count - counted.to(values.dtype)
    return total / count.clamp(min=1)


def peer_deviation(values: Tensor, counted: Tensor, group: Tensor | None) -> Tensor:
    """Sample standard deviation (Bessel: n - 1) of the counted values of each row's group, `[B]`.

    >>> peer_deviation(torch.tensor([0.0, 0.0, 0.0, 1.0]), torch.ones(4, dtype=torch.bool), None)
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    count = peer_sum(torch.ones_like(values), counted, group)
    centred = values - peer_mean(values, counted, group)
    return (peer_sum(centred.square(), counted, group) / (count - 1).clamp(min=1)).sqrt()


def peers_differ(values: Tensor, counted: Tensor, group: Tensor | None) -> Tensor:
    """Whether a row's group has two counted values that are not the same, `[B]` bool.

    Compared exactly: the deviation of equal numbers is a rounding error, which a division blows up.

    >>> peers_differ(torch.tensor([0.1, 0.1, 0.3]), torch.ones(3, dtype=torch.bool), torch.tensor([0, 0, 1]))
    tensor([False, False, False])
    """
    return peer_max(values, counted, group) > -peer_max(-values, counted, group)


def peer_max(values: Tensor, counted: Tensor, group: Tensor | None) -> Tensor:
    """The largest counted value of each row's group, `[B]`; -inf of none.

    >>> peer_max(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([True, True, False]), None)
    tensor([2., 2., 2.])
    """
    kept = torch.where(counted, values, -torch.inf)
    if group is None:
        return max_over_ranks(kept.max()).expand(len(values))
    _, index = torch.unique(group, return_inverse=True)
    return torch.full_like(kept, -torch.inf).scatter_reduce(0, index, kept, "amax")[index]
