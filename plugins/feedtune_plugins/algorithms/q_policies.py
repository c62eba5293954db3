"""Policies that act on action values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from feedtune.contracts import Backbone, State
from feedtune.functional import acting_logp, dueling
from feedtune.policy import Policy, at_least_float32


def q_values(heads: nn.ModuleDict, hidden: Tensor) -> Tensor:
    """Q(s, .) `[..., V]` of the head "q", or of "value" and "advantage" together, in float32 or wider."""
    if "q" in heads:
        return at_least_float32(heads["q"](hidden))
    value, advantage = heads["value"](hidden), heads["advantage"](hidden)
    return dueling(at_least_float32(value), at_least_float32(advantage))


class QPolicy(Policy):
    """Acts on action values from heads of its own (untied, 0 at first).

    The distribution is (1 - epsilon) softmax(Q / temperature) + epsilon uniform. Q is the head "q", or
    V + A - mean A of the heads "value" and "advantage" where there are these two (dueling).

    Args:
        backbone: reads tokens.
        heads: "q", or "value" and "advantage"; by default "q".
        temperature: of the softmax, at least 0. Lower is greedier; at 0 the tokens of the largest Q share it.
        epsilon: share of tokens drawn uniformly, in [0, 1]. It may change while training.
        towers: further backbones by name.
    """

    epsilon: Tensor

    def __init__(
        self,
        backbone: Backbone,
        heads: Mapping[str, int] | None = None,
        temperature: float = 1.0,
        epsilon: float = 0.0,
        towers: Mapping[str, Backbone] | None = None,
    ) -> None:
        # The base divides logits by its temperature and so refuses 0; here nothing is divided by it.
        super().__init__(backbone, heads or {"q": backbone.vocab_size}, temperature or 1.0, towers)
        self.temperature = temperature
        self.register_buffer("epsilon", torch.tensor(epsilon, dtype=torch.float64))

    @property
    def config(self) -> dict[str, Any]:
        """Plain keyword arguments that, with a backbone and the towers, build this policy as it is now."""
        return {**self._config, "temperature": self.temperature, "epsilon": float(self.epsilon)}

    @config.setter
    def config(self, config: dict[str, Any]) -> None:
        self._config = config

    def q_values(self, hidden: Tensor) -> Tensor:
        """Q(s, .) `[..., V]` in float32 or wider, of the states with these hidden states `[..., H]`."""
        return q_values(self.heads, hidden)

    def prior_logp(self, hidden: Tensor) -> Tensor | None:
        """log p(. | s) `[..., V]` of the prior that the policy tilts; None weighs every token 1."""
        return None

    def action_logits(self, hidden: Tensor) -> Tensor:
        return self.acting_logp(self.q_values(hidden), self.prior_logp(hidden))

    def acting_logp(self, q: Tensor, prior_logp: Tensor | None = None) -> Tensor:
        """Log-probabilities of the rule (1 - epsilon) prior exp(Q / T) / Z + epsilon / V, `[..., V]`."""
        values = q if prior_logp is None else q + self.temperature * prior_logp
        return acting_logp(values, self.temperature, self.epsilon)


class PriorPolicy(QPolicy):
    """Acts by p exp(Q / temperature) / Z, where p is a frozen language model: the tower "prior".

    Both models read; the hidden states are those of the backbone and of the prior side by side, `[B, T, 2H]`,
    and the state is the pair of their states.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: Mapping[str, int] | None = None,
        temperature: float = 1.0,
        epsilon: float = 0.0,
        towers: Mapping[str, Backbone] | None = None,
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0 with a prior, got {temperature}")
        if "prior" not in (towers or {}):
            raise ValueError("a policy with a prior needs it among its towers: towers={'prior': backbone}")
        super().__init__(backbone, heads, temperature, epsilon, towers)
        self.freeze()

    def freeze(self) -> None:
        """Keep the prior as it is: it is neither trained nor in training mode."""
        self.towers.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> PriorPolicy:
        super().train(mode)
        self.towers.eval()
        return self

    @property
    def prior(self) -> Backbone:
        """The frozen language model."""
        return self.read_by("prior")

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        own, theirs = (None, None) if state is None else state
        hidden, own = self.backbone(tokens, mask, own)
        prior_hidden, theirs = self.prior(tokens, mask, theirs)
        both = torch.cat([hidden, prior_hidden], -1)  # [B, T, 2H]
        return both, None if own is None else (own, theirs)

    def select(self, state: State, rows: Tensor) -> State:
        own, theirs = state
        return self.backbone.select(own, rows), self.prior.select(theirs, rows)

    def q_values(self, hidden: Tensor) -> Tensor:
        return super().q_values(hidden.chunk(2, -1)[0])

    def prior_logp(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.prior.unembed(hidden.chunk(2, -1)[1])
        return at_least_float32(logits).log_softmax(-1)
