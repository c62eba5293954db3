"""Returns and advantages over the tokens that the policy chose.

Observation tokens between two responses take no time step: "next" is always the next action token of the
row. All functions return 0 on tokens that are no actions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def action_index(action: Tensor) -> Tensor:
    """Time step of each action token within its row, `[B, T]` bool to `[B, T]` int64: 0 for the first.

    >>> action_index(torch.tensor([[False, True, False, True]]))
    tensor([[0, 0, 0, 1]])
    """
    steps = action.long().cumsum(-1) - 1
    return torch.where(action, steps, 0)


def returns_to_go(reward: Tensor, action: Tensor, gamma: float, bootstrap: Tensor | None = None) -> Tensor:
    """Discounted return from each action token on: G_t = r_t + gamma G_{t+1}.

    Args:
        reward: `[B, T]`.
        action: `[B, T]` bool.
        gamma: discount in [0, 1] per action token.
        bootstrap: `[B]` value after the last action token; 0 where the row is done.

    >>> returns_to_go(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([[False, True, True]]), 0.5)
    tensor([[0., 2., 2.]])
    """
    following = torch.zeros_like(reward[:, 0]) if bootstrap is None else bootstrap.to(reward.dtype)
    found = torch.zeros_like(reward)
    for t in range(reward.shape[1] - 1, -1, -1):
        here = action[:, t]
        following = torch.where(here, reward[:, t] + gamma * following, following)
        found[:, t] = torch.where(here, following, 0)
    return found


def next_values(values: Tensor, action: Tensor, bootstrap: Tensor | None = None) -> Tensor:
    """For each action token the value before the row's next action token, or the bootstrap after the last.

    Args:
        values: `[B, T]`, the value of the state before token t.
        action: `[B, T]` bool.
        bootstrap: `[B]` value after the last action token; 0 where the row is done.

    >>> next_values(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[True, False, True]]))
    tensor([[3., 0., 0.]])
    """
    following = torch.zeros_like(values[:, 0]) if bootstrap is None else bootstrap.to(values.dtype)
    found = torch.zeros_like(values)
    for t in range(values.shape[1] - 1, -1, -1):
        here = action[:, t]
        found[:, t] = torch.where(here, following, 0)
        following = torch.where(here, values[:, t], following)
    return found


def generalized_advantages(
    reward: Tensor,
    values: Tensor,
    action: Tensor,
    gamma: float,
    lam: float,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Generalized advantage estimation (Schulman et al. 2016, arXiv:1506.02438), `[B, T]`.

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t) and A_t = delta_t + gamma lam A_{t+1}, over action tokens.

    Args:
        reward: `[B, T]`.
        values: `[B, T]`, the value of the state before token t.
        action: `[B, T]` bool.
        gamma: discount in [0, 1] per action token.
        lam: 0 trusts the values (one-step), 1 trusts the returns.
        bootstrap: `[B]` value after the last action token; 0 where the row is done.

    >>> reward, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]])
    >>> generalized_advantages(reward, values, torch.tensor([[True, True]]), gamma=1.0, lam=1.0)
    tensor([[0.5000, 0.7500]])
    """
    delta = torch.where(action, reward + gamma * next_values(values, action, bootstrap) - values, 0)
    return returns_to_go(delta, action, gamma * lam)
