"""Implicit Language Q-Learning: offline values that never ask about tokens outside the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from feedtune.checks import check_not_negative, check_positive, check_unit, check_used
from feedtune.contracts import Algorithm, Backbone, Loss
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.functional import chosen_logp, chosen_value, conservative_gap, expectile_loss, q_targets
from feedtune.policy import Policy, at_least_float32
from feedtune.reading import read
from feedtune.scoring import head_values, states_before
from feedtune_plugins.algorithms.targets import TargetNetwork

Q_HEADS = ("q1", "q2")
MAX_WEIGHT = 100.0


def two_q_values(heads: nn.ModuleDict, hidden: Tensor) -> Tensor:
    """Q1 and Q2 `[2, ..., V]` of the states with these hidden states `[..., H]`, in float32 or wider."""
    return torch.stack([at_least_float32(heads[name](hidden)) for name in Q_HEADS])


class ILQLPolicy(Policy):
    """Acts by softmax(log pi + beta (min(Q1, Q2) - V)): the language model, tilted towards better tokens.

    Args:
        backbone: reads tokens; its language model is pi.
        heads: "q1" and "q2" with one output a token and "value" with one.
        temperature: divides the logits of pi, above 0.
        beta: at least 0; 0 speaks as pi, higher trusts the values more.
        towers: further backbones by name.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: Mapping[str, int] | None = None,
        temperature: float = 1.0,
        beta: float = 1.0,
        towers: Mapping[str, Backbone] | None = None,
    ) -> None:
        tokens = backbone.vocab_size
        super().__init__(backbone, heads or {"q1": tokens, "q2": tokens, "value": 1}, temperature, towers)
        self.beta = beta
        self.config: dict[str, Any] = {**self.config, "beta": beta}

    def imitation_logits(self, hidden: Tensor) -> Tensor:
        """Logits `[..., V]` of pi, which imitates the data."""
        return super().action_logits(hidden)

    def action_logits(self, hidden: Tensor) -> Tensor:
        # V is the same for every token of a state, so it cancels in the softmax and is not computed.
        best = two_q_values(self.heads, hidden).amin(0)
        return self.imitation_logits(hidden).log_softmax(-1) + self.beta * best


class ILQL(Algorithm):
    """Implicit Language Q-Learning (Snell et al. 2022, arXiv:2206.11871).

    With a the token of the data and Q_target slow copies of both Qs, the loss adds up

    - Q: sum over both of (Q_i(s, a) - r - gamma V(s'))^2, with V(s') 0 after a terminal token;
    - V: |expectile - 1(u < 0)| u^2 with u = min Q_target(s, a) - V(s);
    - CQL: cross-entropy of softmax(Q_i) with a, over both;
    - imitation (AWAC): -w log pi(a | s), w = exp(awac_beta (min Q_target(s, a) - V(s))) without gradient.

    Each is a mean over the action tokens of the optimiser step.

    Args:
        target: the slow copy of both Qs and of the backbone they read.
        gamma: discount in [0, 1] per action token.
        expectile: in (0, 1): 0.5 values the data's behaviour, towards 1 its best tokens.
        conservative: weight of CQL, at least 0.
        imitation: weight of imitation, at least 0.
        awac_beta: at least 0; 0 imitates every token alike, higher prefers tokens better than V.
        max_weight: of awac_beta above 0: the largest w, above 0 (inf: no bound); null: 100.
        beta: of the acting rule softmax(log pi + beta (min Q - V)), at least 0.
        temperature: divides the logits of pi, above 0.
    """

    def __init__(
        self,
        *,
        target: TargetNetwork,
        gamma: float = 1.0,
        expectile: float = 0.7,
        conservative: float = 0.1,
        imitation: float = 1.0,
        awac_beta: float = 0.0,
        max_weight: float | None = None,
        beta: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        check_unit("algorithm.gamma", gamma)
        if not 0 < expectile < 1:
            raise UserError(f"algorithm.expectile: expected a number in (0, 1), got {expectile}")
        check_not_negative("algorithm.conservative", conservative)
        check_not_negative("algorithm.imitation", imitation)
        check_not_negative("algorithm.awac_beta", awac_beta)
        check_not_negative("algorithm.beta", beta)
        check_positive("algorithm.temperature", temperature)
        if max_weight is not None:
            check_positive("algorithm.max_weight", max_weight)
        check_used("algorithm.max_weight", max_weight, awac_beta > 0, "algorithm.awac_beta above 0")
        if awac_beta and not imitation:
            raise UserError("algorithm.awac_beta: with algorithm.imitation=0 nothing is imitated; leave it 0")
        self.gamma, self.expectile, self.conservative = gamma, expectile, conservative
        self.imitation, self.awac_beta = imitation, awac_beta
        self.max_weight = MAX_WEIGHT if max_weight is None else max_weight
        self.beta, self.temperature = beta, temperature
        self.target = target

    def build_policy(self, make_backbone: Callable[[], Backbone]) -> ILQLPolicy:
        return ILQLPolicy(make_backbone(), temperature=self.temperature, beta=self.beta)

    def setup(self, policy: Policy) -> None:
        self.target.start(policy)

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        assert isinstance(policy, ILQLPolicy)
        hidden = read(policy, exp)  # [B, T, H]
        states, tokens = states_before(hidden, exp.action), exp.tokens[exp.action]  # [N, H], [N]
        before, after = head_values(policy, "value", exp, hidden)  # [B, T], [B]
        reward = exp.reward.to(before.dtype)
        targets = q_targets(reward, before.detach(), exp.action, self.gamma, after.detach())[exp.action]
        value, best = before[exp.action], self._target_q(exp, tokens)  # [N], [N]
        q = two_q_values(policy.heads, states)  # [2, N, V]
        both = tokens.expand(2, -1)
        terms = {
            "loss/q": (chosen_value(q, both) - targets).square().sum(0),
            "loss/value": expectile_loss(best - value, self.expectile),
            "loss/conservative": conservative_gap(q, both).sum(0),
            "loss/imitation": -self._weight(best - value)
            * chosen_logp(policy.imitation_logits(states), tokens),
        }
        weights = {"loss/conservative": self.conservative, "loss/imitation": self.imitation}
        total = torch.stack([weights.get(name, 1.0) * term.sum() for name, term in terms.items()]).sum()
        count = max(1, len(tokens))
        metrics = {name: term.detach().sum() / count for name, term in terms.items()}
        metrics["policy/q"] = best.sum() / count
        metrics["policy/advantage"] = (best - value.detach()).sum() / count
        return Loss(total, exp.token_count, metrics)

    @torch.no_grad()
    def _target_q(self, exp: Experience, tokens: Tensor) -> Tensor:
        """min Q_target of the data's tokens, `[N]`."""
        slow = states_before(self.target.read(exp), exp.action)
        return chosen_value(two_q_values(self.target.heads, slow), tokens.expand(2, -1)).amin(0)

    @torch.no_grad()
    def _weight(self, advantage: Tensor) -> Tensor:
        """exp(awac_beta advantage), bounded, `[N]`."""
        return (self.awac_beta * advantage).exp().clamp(max=self.max_weight)

    def after_step(self, policy: Policy) -> None:
        self.target.follow(policy)
