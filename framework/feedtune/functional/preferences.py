"""Preferences: which rows form pairs or are the best of their group, and what a pair costs.

Shapes: B rows, P pairs. `delta` `[P]` is the policy's lead of the chosen response over the rejected one,
log pi(chosen)/pi_ref(chosen) - log pi(rejected)/pi_ref(rejected), log-probabilities summed over a response.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def pairs_of(score: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """The rows `[P]` of each group's better response and of its worse one; the first row wins a tie.

    Args:
        score: `[B]`.
        group: `[B]` int64; the two rows of a pair have the same number, wherever they stand.

    Raises:
        ValueError: a group has not two rows.

    >>> pairs_of(torch.tensor([0.0, 5.0, 1.0, 4.0]), torch.tensor([7, 3, 7, 3]))
    (tensor([1, 2]), tensor([3, 0]))
    """
    numbers, counts = torch.unique(group, return_counts=True)
    if bool((counts != 2).any()):
        odd = counts != 2
        raise ValueError(f"group {int(numbers[odd][0])} has {int(counts[odd][0])} rows, expected two")
    first, second = group.argsort(stable=True).view(-1, 2).unbind(-1)
    swapped = score[second] > score[first]
    return torch.where(swapped, second, first), torch.where(swapped, first, second)


def best_of_groups(score: Tensor, counted: Tensor, group: Tensor, keep: int) -> Tensor:
    """Which rows are among the `keep` best counted ones of their group, `[B]` bool; earlier rows win ties.

    Args:
        score: `[B]`.
        counted: `[B]` bool; other rows are never among the best.
        group: `[B]` int64.
        keep: most rows of a group.

    >>> score, three = torch.tensor([2.0, 1.0, 2.0]), torch.ones(3, dtype=torch.bool)
    >>> best_of_groups(score, three, torch.zeros(3, dtype=torch.int64), keep=1)
    tensor([ True, False, False])
    """
    place = torch.arange(len(score), device=score.device)
    earlier = place[None] < place[:, None]  # [B, B]: does the column's row stand before the line's?
    ahead = (score[None] > score[:, None]) | ((score[None] == score[:, None]) & earlier)
    rivals = (group[None] == group[:, None]) & counted[None]
    return counted & ((ahead & rivals).sum(-1) < keep)


def dpo_loss(delta: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """-log sigmoid(beta delta), any shape (Rafailov et al. 2023, arXiv:2305.18290, equation 7).

    With label smoothing e, the probability that a label is the wrong way round, it is
    -(1 - e) log sigmoid(beta delta) - e log sigmoid(-beta delta) ("conservative DPO", Mitchell 2023).

    >>> dpo_loss(torch.tensor([0.0, 10.0]), beta=0.1)
    tensor([0.6931, 0.3133])
    """
    right, wrong = -logsigmoid(beta * delta), -logsigmoid(-beta * delta)
    return (1 - label_smoothing) * right + label_smoothing * wrong


def hinge_loss(delta: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """max(0, 1 - beta delta), any shape.

    SLiC-HF (Zhao et al. 2023, arXiv:2305.10425) with log-ratios, as in Liu et al. 2024 (arXiv:2309.06657).
    Smoothed as `dpo_loss` is: (1 - e) max(0, 1 - beta delta) + e max(0, 1 + beta delta).

    >>> hinge_loss(torch.tensor([-5.0, 0.0, 20.0]), beta=0.1)
    tensor([1.5000, 1.0000, 0.0000])
    """
    right, wrong = (1 - beta * delta).relu(), (1 + beta * delta).relu()
    return (1 - label_smoothing) * right + label_smoothing * wrong


def ipo_loss(delta: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """(delta - 1 / (2 beta))^2, any shape (Azar et al. 2023, arXiv:2310.12036, eq. 17; beta is their tau).

    Smoothed as `dpo_loss` is: (1 - e) (delta - 1 / (2 beta))^2 + e (delta + 1 / (2 beta))^2.

    >>> ipo_loss(torch.tensor([0.0, 5.0]), beta=0.1)
    tensor([25.,  0.])
    """
    right, wrong = (delta - 0.5 / beta).square(), (delta + 0.5 / beta).square()
    return (1 - label_smoothing) * right + label_smoothing * wrong


def pairwise_reward_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """-log sigmoid(s_chosen - s_rejected - margin) of two responses' rewards, any shape.

    The Bradley-Terry likelihood (Ouyang et al. 2022, arXiv:2203.02155, equation 1); the margin is that of
    Llama 2 (Touvron et al. 2023, arXiv:2307.09288, equation 2).

    >>> pairwise_reward_loss(torch.tensor(3.0), torch.tensor(1.0), margin=2.0)
    tensor(0.6931)
    """
    return -logsigmoid(chosen - rejected - margin)
