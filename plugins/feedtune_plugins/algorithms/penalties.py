"""What is taken off the reward or added to the loss: the leash to the reference, and a price on length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from feedtune.checks import check_choice, check_not_negative, check_used
from feedtune.distributed import sum_over_ranks
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.functional import adapt_coefficient, k1, k2, k3, overlong_penalty

Place = Literal["reward", "loss"]
Estimator = Literal["k1", "k2", "k2_row", "k3", "k3_token_ratio", "k3_prefix_ratio"]


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """Keeps the KL of a row near a target (Ziegler et al. 2019).

    Args:
        target: nats a row.
        horizon: rows over which the coefficient may grow by a fifth; larger is slower.
    """

    target: float = 6.0
    horizon: float = 10_000.0


class KLPenalty(nn.Module):
    """beta times an estimate of the KL divergence of each action token from the reference.

    What each estimator's gradient is, where rows are summed and drawn from the policy itself:

    - of the row's KL(policy, reference): k1 in the reward, k2_row and k3_prefix_ratio in the loss;
    - of the token KL(policy, reference), visited states frozen: k2 and k3_token_ratio in the loss;
    - of the token KL(reference, policy), visited states frozen: k3 in the loss.

    The two with a ratio to the policy that acted stay right when the policy has moved on since. k1 in the
    loss has no gradient in expectation and the others in the reward are no KL: these are refused.

    Args:
        coefficient: beta, at least 0. Higher keeps closer to the reference; 0 computes no reference.
        place: "reward" or "loss".
        estimator: "k1" in the reward; in the loss "k2", "k2_row" (half the square of the row's summed log-
            ratio), "k3", "k3_token_ratio" or "k3_prefix_ratio" (k3 times pi/pi_old of the token, or of all
            tokens up to it).
        adaptive: moves the coefficient after each rollout; null keeps it.
    """

    beta: Tensor

    def __init__(
        self,
        *,
        coefficient: float = 0.05,
        place: Place = "reward",
        estimator: Estimator = "k1",
        adaptive: Adaptive | None = None,
    ) -> None:
        super().__init__()
        check_choice("algorithm.kl.place", place, get_args(Place))
        check_choice("algorithm.kl.estimator", estimator, get_args(Estimator))
        check_not_negative("algorithm.kl.coefficient", coefficient)
        if (place == "reward") != (estimator == "k1"):
            right = "k1" if place == "reward" else f"one of {', '.join(get_args(Estimator)[1:])}"
            raise UserError(
                f"algorithm.kl.estimator: {estimator} in the {place} is not the gradient of a KL divergence; "
                f"with algorithm.kl.place={place} use {right}"
            )
        if adaptive is not None and not (adaptive.target > 0 and adaptive.horizon > 0):
            raise UserError("algorithm.kl.adaptive: target and horizon must be above 0")
        check_used("algorithm.kl.adaptive", adaptive, coefficient > 0, "algorithm.kl.coefficient above 0")
        self.place, self.estimator, self.adaptive = place, estimator, adaptive
        self.active = coefficient > 0
        self.register_buffer("beta", torch.tensor(coefficient, dtype=torch.float64))

    def in_reward(self, exp: Experience) -> Tensor:
        """beta k1 of the tokens that acted, `[B, T]`, if that is where the penalty stands."""
        if not self.active or self.place != "reward":
            return torch.zeros_like(exp.reward)
        return self.beta.to(exp.reward.dtype) * torch.where(exp.action, k1(_acting(exp), _reference(exp)), 0)

    def in_loss(self, logp: Tensor, exp: Experience) -> Tensor:
        """beta times the estimate for each action token, `[B, T]`, if that is where the penalty stands."""
        if not self.active or self.place != "loss":
            return torch.zeros_like(logp)
        return self.beta.to(logp.dtype) * torch.where(exp.action, self._estimate(logp, exp), 0)

    def _estimate(self, logp: Tensor, exp: Experience) -> Tensor:
        reference = _reference(exp)
        if self.estimator == "k2":
            return k2(logp, reference)
        if self.estimator == "k2_row":  # on the last action token, so that the row's sum has it once
            rows = torch.where(exp.action, k1(logp, reference), 0).sum(-1, keepdim=True)  # [B, 1]
            return torch.where(exp.last, rows.square() / 2, 0)
        if self.estimator == "k3":
            return k3(logp, reference)
        log_ratio = torch.where(exp.action, logp - _acting(exp), 0)
        if self.estimator == "k3_prefix_ratio":
            log_ratio = log_ratio.cumsum(-1)
        return log_ratio.exp() * k3(logp, reference)

    def observe(self, exp: Experience) -> dict[str, float]:
        """Measure the rollout's KL a row and move the coefficient; returns both."""
        if not self.active:
            return {}
        used = float(self.beta)
        per_row = torch.where(exp.action, k1(_acting(exp), _reference(exp)), 0).sum(-1)  # [B]
        counted = exp.action.any(-1)
        total = sum_over_ranks(torch.stack([per_row[counted].sum(), counted.sum()]).double())
        kl, rows = float(total[0] / total[1].clamp(min=1)), int(total[1])
        if self.adaptive is not None:
            beta = adapt_coefficient(used, kl, self.adaptive.target, rows, self.adaptive.horizon)
            self.beta.fill_(beta)
        return {"policy/kl": kl, "policy/kl_coefficient": used}


@dataclass(frozen=True, kw_only=True)
class Overlong:
    """A soft price on rows that come near the length limit (DAPO, Yu et al. 2025).

    Nothing up to limit - margin tokens, then (limit - margin - length) / margin, never below -1.

    Args:
        limit: longest response in tokens, as `collector.max_new_tokens`.
        margin: tokens before the limit over which the penalty grows; from 1 to the limit.
    """

    limit: int
    margin: int

    def __post_init__(self) -> None:
        if not 1 <= self.margin <= self.limit:
            raise UserError(
                f"algorithm.overlong.margin: expected a number from 1 to the limit of {self.limit}, "
                f"got {self.margin}"
            )

    def in_reward(self, exp: Experience) -> Tensor:
        """The penalty, positive, on the last action token of each row, `[B, T]`."""
        length = exp.action.sum(-1, keepdim=True).to(exp.reward.dtype)  # [B, 1]
        return torch.where(exp.last, -overlong_penalty(length, self.limit, self.margin), 0)


def _acting(exp: Experience) -> Tensor:
    """Log-probabilities of the policy as it acted: a whole pass's, or else the sampler's."""
    acting = exp.sampler_logp if exp.old_logp is None else exp.old_logp
    if acting is None:
        raise RuntimeError("a KL penalty needs the log-probabilities of the policy that acted")
    return acting


def _reference(exp: Experience) -> Tensor:
    if exp.ref_logp is None:
        raise RuntimeError("a KL penalty needs the reference's log-probabilities")
    return exp.ref_logp
