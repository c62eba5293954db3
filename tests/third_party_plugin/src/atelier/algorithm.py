"""Advantage-weighted regression (Peng et al. 2019, arXiv:1910.00177)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from feedtune.contracts import Algorithm, Backbone, Loss
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.functional import masked_mean, returns_to_go
from feedtune.policy import Policy
from feedtune.scoring import head_values, score_actions


class AdvantageWeightedRegression(Algorithm):
    """Imitates what was done, the more the better it turned out than expected.

    With the return G_t that was seen and a value head V, each action token `[B, T]` costs

        -w_t log pi(a_t | s_t) + value_weight (G_t - V(s_t))^2 / 2

    with w_t = min(exp((G_t - V(s_t)) / beta), max_weight), through which no gradient goes, averaged over the
    action tokens of the optimiser step. It divides by no probability of whoever acted, so the experience may
    be of older policies, or of people.

    Args:
        beta: of the advantage, above 0; lower imitates the best alone, higher everything alike.
        max_weight: the largest w, above 0 (the paper has 20).
        gamma: discount in [0, 1] per action token.
        value_weight: of the value loss beside that of the policy, above 0.
        temperature: divides the logits everywhere; above 0. Higher draws more varied responses.

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        beta: float = 1.0,
        max_weight: float = 20.0,
        gamma: float = 1.0,
        value_weight: float = 0.5,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        above_zero = {"beta": beta, "max_weight": max_weight, "value_weight": value_weight}
        for key, value in {**above_zero, "temperature": temperature}.items():
            if not value > 0:
                raise UserError(f"algorithm.{key}: expected a number above 0, got {value}")
        if not 0 <= gamma <= 1:
            raise UserError(f"algorithm.gamma: expected a number in [0, 1], got {gamma}")
        self.beta, self.max_weight, self.gamma = beta, max_weight, gamma
        self.value_weight, self.temperature = value_weight, temperature

    def build_policy(self, make_backbone: Callable[[], Backbone]) -> Policy:
        """A policy with a value head."""
        return Policy(make_backbone(), {"value": 1}, self.temperature)

    def needs(self) -> frozenset[str]:
        """Values, for what follows a row that was cut off."""
        return frozenset({"values"})

    def prepare(self, exp: Experience, policy: Policy) -> tuple[Experience, Mapping[str, float]]:
        """The returns, as `exp.extra["returns"]` `[B, T]`."""
        bootstrap = exp.extra["bootstrap"]
        reward = exp.reward.to(bootstrap.dtype)
        return exp.with_(returns=returns_to_go(reward, exp.action, self.gamma, bootstrap)), {}

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        """Sum of the tokens' losses, and their number."""
        scores = score_actions(policy, exp, with_entropy=False)
        values, _ = head_values(policy, "value", exp, scores.hidden)  # [B, T]
        advantage = exp.extra["returns"] - values
        weight = (advantage.detach() / self.beta).exp().clamp(max=self.max_weight)
        imitation = torch.where(exp.action, -weight * scores.logp, 0)
        fit = torch.where(exp.action, advantage.square() / 2, 0)
        metrics = {
            "loss/policy": masked_mean(imitation, exp.action).detach(),
            "loss/value": masked_mean(fit, exp.action).detach(),
            "policy/weight": masked_mean(weight, exp.action),
        }
        return Loss((imitation + self.value_weight * fit).sum(), exp.token_count, metrics)
