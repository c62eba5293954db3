"""Log-probabilities and entropy from logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def chosen_logp(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of the chosen tokens, `[..., V]` and `[...]` int64 to `[...]`.

    >>> chosen_logp(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([0.2500])
    """
    logp: Tensor = _Chosen.apply(logits, tokens, False)[0]  # type: ignore[no-untyped-call]
    return logp


def chosen_logp_and_entropy(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of the chosen tokens, and entropy in nats of the distributions; `[...]` each.

    Impossible actions (logits of -inf) add nothing to the entropy.

    >>> chosen_logp_and_entropy(torch.zeros(1, 4), torch.tensor([2]))[1].exp()
    tensor([4.])
    """
    logp, entropy = _Chosen.apply(logits, tokens, True)  # type: ignore[no-untyped-call]
    return logp, entropy


class _Chosen(torch.autograd.Function):
    """With a backward by hand: autograd's own makes three more tensors of the size of the logits.

    d log p(a) / d logits = onehot(a) - p;  d H / d logits = -p (log p + H).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
        # Not gather - logsumexp: the difference of two large numbers loses digits (and is slower, measured).
        logp = logits.log_softmax(-1)  # [..., V]
        chosen = logp.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        entropy = None
        if with_entropy:
            logp.clamp_(min=torch.finfo(logp.dtype).min)  # so that 0 times it is 0
            entropy = -torch.linalg.vecdot(logp.exp(), logp)
        ctx.save_for_backward(logp, tokens, entropy)
        ctx.set_materialize_grads(False)
        return chosen, entropy

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, None, None]:
        of_logp, of_entropy = given
        logp, tokens, entropy = ctx.saved_tensors
        found = logp.exp()  # becomes p x what d log p(a) and d H have in common with it
        weight = torch.zeros_like(logp[..., :1]) if of_logp is None else of_logp.unsqueeze(-1)
        if of_entropy is None:
            found.mul_(-weight)
        else:
            found.mul_(-weight - (logp + entropy.unsqueeze(-1)) * of_entropy.unsqueeze(-1))
        return found.scatter_add_(-1, tokens.unsqueeze(-1), weight), None, None
