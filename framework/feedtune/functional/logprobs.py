"""Log-probabilities and entropy from logits."""

from __future__ import annotations

from torch import Tensor


def chosen_logp(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of the chosen tokens, `[..., V]` and `[...]` int64 to `[...]`.

    >>> import torch
    >>> chosen_logp(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([0.2500])
    """
    # Not gather - logsumexp: the difference of two large numbers loses digits (and is slower, measured).
    return logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of each distribution, `[..., V]` to `[...]`; impossible actions (-inf) add 0.

    >>> import torch
    >>> entropy(torch.zeros(1, 4)).exp()
    tensor([4.])
    """
    logp = logits.log_softmax(-1)
    return -(logp.exp() * logp.clamp(min=-1e30)).sum(-1)
