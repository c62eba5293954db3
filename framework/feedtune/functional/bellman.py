"""Action values over the tokens that the policy chose: targets, state values, regularisers, acting.

Q is `[..., V]`: one value for each token of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from feedtune.functional.returns import next_values


def q_targets(
    reward: Tensor,
    state_values: Tensor,
    action: Tensor,
    gamma: float,
    bootstrap: Tensor | None = None,
    steps: int = 1,
) -> Tensor:
    """Targets y_t = r_t + gamma r_{t+1} + ... + gamma^n V(s_{t+n}), `[B, T]`.

    They are 0 on tokens that are no actions. V is max_a Q for Q-learning (Watkins 1989). Rows that end before
    n steps bootstrap where they end. With n > 1 the rewards in between are those of whoever acted,
    uncorrected (Sutton 1988; Hessel et al. 2018, arXiv:1710.02298): the fixed point is weighted by that
    behaviour and is not Q*.

    Args:
        reward: `[B, T]`.
        state_values: `[B, T]`, V of the state before token t.
        action: `[B, T]` bool.
        gamma: discount in [0, 1] per action token.
        bootstrap: `[B]` value after the last action token; 0 where the row is done.
        steps: n, at least 1.

    >>> reward, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.8]])
    >>> q_targets(reward, values, torch.tensor([[True, True]]), gamma=0.5)
    tensor([[0.4000, 1.0000]])
    >>> q_targets(reward, values, torch.tensor([[True, True]]), gamma=0.5, steps=2)
    tensor([[0.5000, 1.0000]])
    """
    # The n-step target is the one-step target of the (n-1)-step target.
    for _ in range(steps):
        state_values = torch.where(action, reward + gamma * next_values(state_values, action, bootstrap), 0)
    return state_values


def chosen_value(q: Tensor, tokens: Tensor) -> Tensor:
    """Q(s, a) of the chosen tokens, `[..., V]` and `[...]` int64 to `[...]`.

    >>> chosen_value(torch.tensor([[1.0, 5.0]]), torch.tensor([1]))
    tensor([5.])
    """
    return q.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def double_value(q: Tensor, target_q: Tensor) -> Tensor:
    """Q_target of the action that Q prefers, `[..., V]` to `[...]`.

    Double Q-learning (van Hasselt et al. 2016, arXiv:1509.06461): the maximum of a noisy target is too high
    on average; the noise of another network does not pick itself.

    >>> double_value(torch.tensor([[1.0, 2.0]]), torch.tensor([[9.0, 3.0]]))
    tensor([3.])
    """
    return chosen_value(target_q, q.argmax(-1))


def soft_value(q: Tensor, temperature: float, prior_logp: Tensor | None = None) -> Tensor:
    """V = temperature log sum_a p(a) exp(Q(a) / temperature), `[..., V]` to `[...]`.

    The value of the policy p exp(Q / temperature) / Z, entropy or KL to the prior included (Haarnoja et al.
    2017, arXiv:1702.08165). Without a prior every token weighs 1, which is maximum entropy.

    Args:
        q: `[..., V]`.
        temperature: above 0; towards 0 the value becomes the maximum.
        prior_logp: `[..., V]` log p; null weighs every token 1.

    >>> soft_value(torch.tensor([0.0, 0.0]), temperature=2.0)
    tensor(1.3863)
    >>> soft_value(torch.tensor([3.0, 3.0]), temperature=2.0, prior_logp=torch.tensor([0.5, 0.5]).log())
    tensor(3.)
    """
    logits = q / temperature if prior_logp is None else q / temperature + prior_logp
    return temperature * logits.logsumexp(-1)


def dueling(value: Tensor, advantage: Tensor) -> Tensor:
    """Q = V + A - mean_a A, `[..., 1]` and `[..., V]` to `[..., V]` (Wang et al. 2016, arXiv:1511.06581).

    >>> dueling(torch.tensor([10.0]), torch.tensor([1.0, 3.0]))
    tensor([ 9., 11.])
    """
    return value + advantage - advantage.mean(-1, keepdim=True)


def conservative_gap(q: Tensor, tokens: Tensor) -> Tensor:
    """logsumexp_a Q(a) - Q(token), `[..., V]` and `[...]` to `[...]` (Kumar et al. 2020, arXiv:2006.04779).

    The regulariser CQL(H) of offline Q-learning: it lowers what the data never did. It is the cross-entropy
    of softmax(Q), never negative.

    >>> conservative_gap(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([4.])
    """
    return -chosen_value(q.log_softmax(-1), tokens)


def expectile_loss(error: Tensor, expectile: float) -> Tensor:
    """|expectile - 1(error < 0)| error^2, any shape (Kostrikov et al. 2022, arXiv:2110.06169).

    With error = Q - V its minimum over V is an expectile of Q: 0.5 is the mean, towards 1 the maximum.

    >>> expectile_loss(torch.tensor([2.0, -2.0]), 0.75)
    tensor([3., 1.])
    """
    return torch.where(error < 0, 1 - expectile, expectile) * error.square()


def acting_logp(values: Tensor, temperature: float, epsilon: Tensor | float = 0.0) -> Tensor:
    """log[(1 - epsilon) softmax(values / temperature) + epsilon / V], `[..., V]` to `[..., V]`.

    Epsilon 0 is Boltzmann's distribution, temperature 0 is epsilon-greedy: tokens that tie for the largest
    value share it evenly.

    Args:
        values: `[..., V]`.
        temperature: at least 0; lower is greedier.
        epsilon: in [0, 1], the share of tokens drawn uniformly.

    >>> acting_logp(torch.tensor([1.0, 0.0, 1.0, 0.0]), temperature=0.0, epsilon=0.2).exp()
    tensor([0.4500, 0.0500, 0.4500, 0.0500])
    """
    if temperature == 0:
        best = (values == values.amax(-1, keepdim=True)).to(values.dtype)
        greedy = (best / best.sum(-1, keepdim=True)).log()
    else:
        greedy = (values / temperature).log_softmax(-1)
    # In logarithms, so that small probabilities stay exact; an epsilon of 0 adds exactly nothing.
    share = torch.as_tensor(epsilon, dtype=torch.float64, device=values.device)
    kept, uniform = torch.log1p(-share), (share / values.shape[-1]).log()
    return torch.logaddexp(greedy + kept.to(values.dtype), uniform.to(values.dtype))
