"""Targets of Q-learning over the tokens that the policy chose."""

from __future__ import annotations

from torch import Tensor

from feedtune.functional.returns import next_values


def q_targets(
    reward: Tensor, state_values: Tensor, action: Tensor, gamma: float, bootstrap: Tensor | None = None
) -> Tensor:
    """One-step targets y_t = r_t + gamma V(s_{t+1}), `[B, T]`; 0 on tokens that are no actions.

    V is max_a Q for Q-learning (Watkins 1989), Q_target(argmax_a Q_online) for double Q-learning
    (van Hasselt et al. 2016, arXiv:1509.06461). After the last action token it is the bootstrap, which
    is 0 in rows that are done.

    Args:
        reward: `[B, T]`.
        state_values: `[B, T]`, V of the state before token t.
        action: `[B, T]` bool.
        gamma: discount in [0, 1] per action token.
        bootstrap: `[B]` value after the last action token.

    >>> import torch
    >>> reward, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.8]])
    >>> q_targets(reward, values, torch.tensor([[True, True]]), gamma=0.5)
    tensor([[0.4000, 1.0000]])
    """
    return (reward + gamma * next_values(state_values, action, bootstrap)) * action
