"""The policy-gradient family: one loss over swappable parts. Each published algorithm is a YAML of parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from feedtune.contracts import Algorithm, Backbone, Loss
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.functional import clipped_surrogate, clipped_value_loss, masked_mean
from feedtune.policy import Policy
from feedtune.scoring import head_values, score_actions
from feedtune_plugins.algorithms.advantages import AdvantageEstimator, check_choice, check_unit
from feedtune_plugins.algorithms.penalties import KLPenalty

Aggregation = Literal["row_sum", "token_mean"]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """PPO's trust region on the token ratio pi / pi_old.

    Args:
        low, high: the ratio pays only within [1 - low, 1 + high]. Wider learns faster and strays further.
        dual: above 1, bounds what a token of negative advantage can cost; null: no bound.
    """

    low: float = 0.2
    high: float = 0.2
    dual: float | None = None

    def __post_init__(self) -> None:
        check_unit("algorithm.clip.low", self.low)
        if self.high < 0:
            raise UserError(f"algorithm.clip.high: expected at least 0, got {self.high}")
        if self.dual is not None and self.dual <= 1:
            raise UserError(f"algorithm.clip.dual: expected a number above 1, got {self.dual}")


@dataclass(frozen=True, kw_only=True)
class ValueLoss:
    """How the value head is fitted to the returns.

    Args:
        weight: of the value loss beside the policy loss.
        clip: keeps a value within so much of the rollout's; null: no bound.
    """

    weight: float = 0.5
    clip: float | None = 0.2

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise UserError(f"algorithm.value.weight: expected at least 0, got {self.weight}")
        if self.clip is not None and self.clip <= 0:
            raise UserError(f"algorithm.value.clip: expected a number above 0, got {self.clip}")


class PolicyGradient(Algorithm):
    """Raises the log-probability of tokens in proportion to their advantage.

    Args:
        advantage: the estimator, with its baseline.
        aggregation: "row_sum" sums over a row's tokens and averages rows (the gradient of the expected
            return); "token_mean" averages all action tokens of the optimiser step.
        clip: null weights log pi by the advantage (REINFORCE); otherwise PPO's clipped ratio.
        kl: penalty on the divergence from the reference; null: none.
        value: how the value head is fitted, where the advantage uses one.
        entropy: weight of an entropy bonus, at least 0, on visited states. Higher explores more.
        temperature: divides the logits everywhere; above 0.
    """

    on_policy = True

    def __init__(
        self,
        *,
        advantage: AdvantageEstimator,
        aggregation: Aggregation = "token_mean",
        clip: Clip | None = None,
        kl: KLPenalty | None = None,
        value: ValueLoss | None = None,
        entropy: float = 0.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice("algorithm.aggregation", aggregation, get_args(Aggregation))
        if temperature <= 0:
            raise UserError(f"algorithm.temperature: expected a number above 0, got {temperature}")
        if entropy < 0:
            raise UserError(f"algorithm.entropy: expected at least 0, got {entropy}")
        self.advantage, self.aggregation, self.clip, self.kl = advantage, aggregation, clip, kl
        self.value = (value or ValueLoss()) if advantage.uses_values() else None
        self.entropy, self.temperature = entropy, temperature

    def needs(self) -> frozenset[str]:
        leashed = self.kl is not None and self.kl.active
        wanted = {"reference": leashed, "old_logp": self.clip is not None or leashed}
        return frozenset(name for name, want in {**wanted, "values": self.value is not None}.items() if want)

    def build_policy(self, make_backbone: Callable[[], Backbone]) -> Policy:
        heads = {"value": 1} if self.value is not None else {}
        return Policy(make_backbone(), heads=heads, temperature=self.temperature)

    def prepare(self, exp: Experience, policy: Policy) -> tuple[Experience, Mapping[str, float]]:
        reward = exp.reward if self.kl is None else self.kl.shape(exp)
        found = self.advantage(exp, reward)
        metrics = {**found.metrics, **({} if self.kl is None else self.kl.observe(exp))}
        return exp.with_(advantage=found.advantage, returns=found.returns), metrics

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        scores = score_actions(policy, exp, entropy_gradient=self.entropy > 0)
        per_token, metrics = self._policy_terms(scores.logp, exp)  # [B, T]
        if self.kl is not None:
            per_token = per_token + self.kl.in_loss(scores.logp, exp)
        if self.entropy > 0:
            per_token = per_token - self.entropy * scores.entropy
        if self.value is not None:
            value_loss = self._value_terms(policy, scores.hidden, exp)  # [B, T]
            per_token = per_token + self.value.weight * value_loss
            metrics["loss/value"] = masked_mean(value_loss, exp.action).detach()
        metrics["policy/entropy"] = masked_mean(scores.entropy, exp.action).detach()
        denominator = exp.row_count if self.aggregation == "row_sum" else exp.token_count
        return Loss(torch.where(exp.action, per_token, 0).sum(), denominator, metrics)

    def _policy_terms(self, logp: Tensor, exp: Experience) -> tuple[Tensor, dict[str, Tensor]]:
        advantage = exp.extra["advantage"]
        if self.clip is None:
            loss = -advantage * logp
            return loss, {"loss/policy": masked_mean(loss, exp.action).detach()}
        if exp.old_logp is None:
            raise RuntimeError("a clipped ratio needs old log-probabilities")
        ratio = torch.where(exp.action, logp - exp.old_logp, 0).exp()
        loss = clipped_surrogate(ratio, advantage, self.clip.low, self.clip.high, self.clip.dual)
        outside = (ratio < 1 - self.clip.low) | (ratio > 1 + self.clip.high)
        return loss, {
            "loss/policy": masked_mean(loss, exp.action).detach(),
            "policy/ratio": masked_mean(ratio, exp.action).detach(),
            "policy/clip_fraction": masked_mean(outside.to(ratio.dtype), exp.action),
        }

    def _value_terms(self, policy: Policy, hidden: Tensor, exp: Experience) -> Tensor:
        assert self.value is not None
        values, _ = head_values(policy, "value", exp, hidden)
        loss = clipped_value_loss(values, exp.extra["value"], exp.extra["returns"], self.value.clip)
        return torch.where(exp.action, loss, 0)
