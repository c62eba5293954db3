"""The policy-gradient family: one loss over swappable parts. Each published algorithm is a YAML of parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from feedtune.checks import check_choice, check_not_negative, check_positive, check_used
from feedtune.contracts import Algorithm, Backbone, Loss
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.functional import clipped_value_loss, masked_mean
from feedtune.policy import Policy
from feedtune.scoring import head_values, score_actions
from feedtune_plugins.algorithms.advantages import AdvantageEstimator
from feedtune_plugins.algorithms.penalties import KLPenalty, Overlong
from feedtune_plugins.algorithms.scaling import RunningScale
from feedtune_plugins.algorithms.surrogates import Surrogate, log_likelihood

Aggregation = Literal["row_sum", "row_mean", "token_mean"]
Critic = Literal["shared", "own"]


@dataclass(frozen=True, kw_only=True)
class ValueLoss:
    """How the value head is fitted to the returns.

    Args:
        weight: of the value loss beside the policy loss.
        clip: keeps a value within so much of the rollout's; null: no bound.
        critic: "shared": the head reads the policy's backbone; "own": it reads a second backbone, which
            costs its memory and passes and leaves the policy's features alone.
    """

    weight: float = 0.5
    clip: float | None = None
    critic: Critic = "shared"

    def __post_init__(self) -> None:
        check_not_negative("algorithm.value.weight", self.weight)
        if self.clip is not None:
            check_positive("algorithm.value.clip", self.clip)
        check_choice("algorithm.value.critic", self.critic, get_args(Critic))


class PolicyGradient(Algorithm):
    """Raises the log-probability of tokens in proportion to their advantage.

    Args:
        advantage: the estimator, with its baseline.
        aggregation: of token losses: "row_sum" sums over a row's tokens and averages rows (the gradient of
            the expected return), "row_mean" averages over a row's tokens and then rows, "token_mean"
            averages all action tokens of the optimiser step.
        length: with "row_sum", a constant that rows are divided by (Dr. GRPO); null: 1.
        surrogate: null weights log pi by the advantage (REINFORCE); otherwise a ratio to the acting policy.
        scaling: divides scores by their running deviation before any penalty is taken off; null: scores stay
            as they are. Refused where the advantage would take that off again.
        kl: penalty on the divergence from the reference; null: none.
        overlong: penalty on rows near the length limit; null: none.
        value: how the value head is fitted, where the advantage reads one; null: as `ValueLoss()` does.
            Its `clip` wants a surrogate: without one, values have not moved since the rollout.
        entropy: weight of an entropy bonus, at least 0, on visited states. Higher explores more.
        temperature: divides the logits everywhere; above 0.
    """

    on_policy = True

    def __init__(
        self,
        *,
        advantage: AdvantageEstimator,
        aggregation: Aggregation = "token_mean",
        length: float | None = None,
        surrogate: Surrogate | None = None,
        scaling: RunningScale | None = None,
        kl: KLPenalty | None = None,
        overlong: Overlong | None = None,
        value: ValueLoss | None = None,
        entropy: float = 0.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice("algorithm.aggregation", aggregation, get_args(Aggregation))
        check_positive("algorithm.temperature", temperature)
        check_not_negative("algorithm.entropy", entropy)
        if length is not None:
            check_positive("algorithm.length", length)
        for key, wants_sum in {
            "length": length is not None,
            "kl.estimator=k2_row": kl is not None and kl.estimator == "k2_row",
        }.items():
            if wants_sum and aggregation != "row_sum":
                raise UserError(
                    f"algorithm.{key}: only algorithm.aggregation=row_sum has a use for it, not {aggregation}"
                )
        if value is not None and "values" not in advantage.needs():
            raise UserError("algorithm.value: the advantage reads no values; leave it null")
        clip = value.clip if value is not None else None
        check_used("algorithm.value.clip", clip, surrogate is not None, "algorithm.surrogate")
        if scaling is not None and scaling.clip is None:
            _check_not_absorbed(scaling, advantage, kl, overlong)
        self.advantage, self.aggregation, self.length = advantage, aggregation, length or 1.0
        self.surrogate, self.scaling = surrogate, scaling
        self.kl, self.overlong = kl, overlong
        self.value = (value or ValueLoss()) if "values" in advantage.needs() else None
        self.entropy, self.temperature = entropy, temperature
        self._one_step = False  # known from `check_steps`

    def needs(self) -> frozenset[str]:
        found = set(self.advantage.needs())
        leashed = self.kl is not None and self.kl.active
        in_reward = leashed and self.kl is not None and self.kl.place == "reward"
        compared = leashed or self.surrogate is not None
        found |= {"old_logp"} if in_reward or (compared and not self._one_step) else set()
        return frozenset(found | {"reference"} if leashed else found)

    def check_steps(self, steps: int) -> None:
        """Without a ratio only the policy that acted has a right gradient: one step a rollout.

        With one step the ratio is 1 and no pass has to be spent on old log-probabilities.
        """
        self._one_step = steps == 1
        if steps > 1 and self.surrogate is None:
            raise UserError(
                f"buffer: {steps} optimiser steps on each rollout (buffer.passes, buffer.minibatches), but "
                "from the second on its tokens are another policy's, and algorithm.surrogate=null has no "
                "ratio to correct for that; take buffer=once, or choose a surrogate: "
                "'algorithm.surrogate={_target_: feedtune_plugins.algorithms.Clip}'"
            )

    def build_policy(self, make_backbone: Callable[[], Backbone]) -> Policy:
        if self.value is None:
            return Policy(make_backbone(), temperature=self.temperature)
        towers = {"value": make_backbone()} if self.value.critic == "own" else {}
        return Policy(make_backbone(), {"value": 1}, self.temperature, towers)

    def prepare(self, exp: Experience, policy: Policy) -> tuple[Experience, Mapping[str, float]]:
        scaled, metrics = (exp, {}) if self.scaling is None else self.scaling(exp)
        reward = scaled.reward
        if self.overlong is not None:
            reward = reward - self.overlong.in_reward(exp)
        if self.kl is not None:
            reward = reward - self.kl.in_reward(exp)
        found = self.advantage(scaled, reward)
        metrics = {**metrics, **found.metrics, **({} if self.kl is None else self.kl.observe(exp))}
        return exp.with_(advantage=found.advantage, returns=found.returns), metrics

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        scores = score_actions(policy, exp, entropy_gradient=self.entropy > 0)
        if self._one_step and exp.old_logp is None:  # the policy has not moved since it acted
            exp = replace(exp, old_logp=scores.logp.detach())
        per_token, metrics = (self.surrogate or log_likelihood)(scores.logp, exp)  # [B, T]
        metrics["loss/policy"] = masked_mean(per_token, exp.action).detach()
        metrics["policy/entropy"] = masked_mean(scores.entropy, exp.action).detach()
        if self.kl is not None:
            per_token = per_token + self.kl.in_loss(scores.logp, exp)
        if self.entropy > 0:
            per_token = per_token - self.entropy * scores.entropy
        if self.value is not None:
            values, _ = head_values(policy, "value", exp, scores.hidden)
            fit = clipped_value_loss(values, exp.extra["value"], exp.extra["returns"], self.value.clip)
            metrics["loss/value"] = masked_mean(fit, exp.action).detach()
            per_token = per_token + self.value.weight * fit
        return self._aggregate(torch.where(exp.action, per_token, 0), exp, metrics)

    def _aggregate(self, per_token: Tensor, exp: Experience, metrics: Mapping[str, Tensor]) -> Loss:
        if self.aggregation == "token_mean":
            return Loss(per_token.sum(), exp.token_count, metrics)
        if self.aggregation == "row_sum":
            return Loss(per_token.sum() / self.length, exp.row_count, metrics)
        rows = per_token.sum(-1) / exp.action.sum(-1).clamp(min=1)  # [B]
        return Loss(rows.sum(), exp.row_count, metrics)


def _check_not_absorbed(
    scaling: RunningScale, advantage: AdvantageEstimator, kl: KLPenalty | None, overlong: Overlong | None
) -> None:
    """Refuse what the advantage takes off again; what is clipped differs in any case."""
    absorbed = advantage.absorbs()
    leashed = kl is not None and kl.active and kl.place == "reward"
    factor = "scale" in absorbed and not leashed and overlong is None
    shift = "shift" in absorbed
    if factor and (shift or not scaling.center):
        raise UserError(
            "algorithm.scaling: algorithm.advantage divides by a deviation of its own, and no penalty in the "
            "reward (algorithm.kl, algorithm.overlong) is weighed against scores; leave it null"
        )
    if scaling.center and shift:
        raise UserError(
            "algorithm.scaling.center: algorithm.advantage takes off what all rows have in common anyway; "
            "leave it false"
        )
