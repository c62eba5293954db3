"""Q-learning on tokens: off-policy, with replay and a target network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from feedtune.contracts import Algorithm, Backbone, Loss
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.functional import q_targets
from feedtune.policy import Policy, at_least_float32
from feedtune.references import FrozenCopy
from feedtune.scoring import scatter, states_before
from feedtune_plugins.algorithms.advantages import check_unit


class QPolicy(Policy):
    """Acts on action values from a head named "q" of its own (untied, starts at 0).

    The distribution is (1 - epsilon) softmax(Q / temperature) + epsilon uniform.

    Args:
        backbone: reads tokens.
        heads: must hold "q" with one output a token of the vocabulary.
        temperature: of the softmax, above 0. Lower is greedier.
        epsilon: share of tokens drawn uniformly, in [0, 1).
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: Mapping[str, int] | None = None,
        temperature: float = 1.0,
        epsilon: float = 0.0,
        towers: Mapping[str, Backbone] | None = None,
    ) -> None:
        super().__init__(backbone, heads or {"q": backbone.vocab_size}, temperature, towers)
        self.epsilon = epsilon
        self.config: dict[str, Any] = {**self.config, "epsilon": epsilon}

    def q_values(self, hidden: Tensor) -> Tensor:
        """Q(s, .) `[..., V]` in float32 or wider, of the states with these hidden states `[..., H]`."""
        return at_least_float32(self.heads["q"](hidden))

    def action_logits(self, hidden: Tensor) -> Tensor:
        logits = self.q_values(hidden) / self.temperature
        if self.epsilon == 0:
            return logits
        uniform = torch.full_like(logits, self.epsilon / logits.shape[-1])
        return ((1 - self.epsilon) * logits.softmax(-1) + uniform).log()


class QLearning(Algorithm):
    """Fits Q to r + gamma (1 - terminal) max_a Q_target(s', a) (Watkins 1989; Mnih et al. 2015).

    Args:
        gamma: discount in [0, 1] per action token.
        double: choose the next action by Q and value it by Q_target (van Hasselt et al. 2016).
        polyak: after each optimiser step the target moves so much of the way to Q, in (0, 1]; 1 copies it.
        target_every: optimiser steps between two moves of the target; at least 1.
        temperature: of the softmax that acts, above 0. Lower is greedier.
        epsilon: share of tokens drawn uniformly, in [0, 1). Higher explores more.
    """

    steps: Tensor

    def __init__(
        self,
        *,
        gamma: float = 1.0,
        double: bool = True,
        polyak: float = 0.1,
        target_every: int = 1,
        temperature: float = 0.02,
        epsilon: float = 0.1,
    ) -> None:
        super().__init__()
        check_unit("algorithm.gamma", gamma)
        if not 0 < polyak <= 1:
            raise UserError(f"algorithm.polyak: expected a number in (0, 1], got {polyak}")
        if target_every < 1:
            raise UserError(f"algorithm.target_every: expected at least 1, got {target_every}")
        if temperature <= 0:
            raise UserError(f"algorithm.temperature: expected a number above 0, got {temperature}")
        if not 0 <= epsilon < 1:
            raise UserError(f"algorithm.epsilon: expected a number in [0, 1), got {epsilon}")
        self.gamma, self.double_q, self.polyak, self.target_every = gamma, double, polyak, target_every
        self.temperature, self.epsilon = temperature, epsilon
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def build_policy(self, make_backbone: Callable[[], Backbone]) -> QPolicy:
        return QPolicy(make_backbone(), temperature=self.temperature, epsilon=self.epsilon)

    def setup(self, policy: Policy) -> None:
        self.target = FrozenCopy(policy)

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        assert isinstance(policy, QPolicy)
        hidden, _ = policy(exp.tokens, exp.mask)  # [B, T, H]
        q = policy.q_values(states_before(hidden, exp.action))  # [N, V]
        chosen = q.gather(-1, exp.tokens[exp.action][:, None]).squeeze(-1)  # [N]
        targets = self._targets(exp, policy, hidden.detach(), q.detach())[exp.action]  # [N]
        error = chosen - targets
        metrics = {
            "loss/q": error.detach().square().mean() / 2,
            "policy/q": chosen.detach().mean(),
            "policy/q_max": q.detach().amax(-1).mean(),
        }
        return Loss(error.square().sum() / 2, exp.token_count, metrics)

    @torch.no_grad()
    def _targets(self, exp: Experience, policy: QPolicy, hidden: Tensor, q: Tensor) -> Tensor:
        """One-step targets `[B, T]`."""
        target = self.target.policy
        assert isinstance(target, QPolicy)
        target_hidden, _ = target(exp.tokens, exp.mask)
        values = self._state_values(q, target.q_values(states_before(target_hidden, exp.action)))  # [N]
        rows = torch.arange(len(exp), device=hidden.device)
        last = (exp.lengths - 1).clamp(min=0)
        after = self._state_values(
            policy.q_values(hidden[rows, last]), target.q_values(target_hidden[rows, last])
        )
        bootstrap = torch.where(exp.done, 0, after)  # [B]
        reward = exp.reward.to(values.dtype)
        return q_targets(reward, scatter(values, exp.action), exp.action, self.gamma, bootstrap)

    def _state_values(self, q: Tensor, target_q: Tensor) -> Tensor:
        """max_a Q_target, or Q_target of the action that Q prefers; `[..., V]` to `[...]`."""
        if not self.double_q:
            return target_q.amax(-1)
        return target_q.gather(-1, q.argmax(-1, keepdim=True)).squeeze(-1)

    @torch.no_grad()
    def after_step(self, policy: Policy) -> None:
        self.steps += 1
        if self.steps % self.target_every:
            return
        for mine, theirs in zip(self.target.parameters(), policy.parameters(), strict=True):
            mine.lerp_(theirs, self.polyak)
