"""The leash: a penalty on the KL divergence from the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from feedtune.distributed import sum_over_ranks
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.functional import adapt_coefficient, k1, k2, k3
from feedtune_plugins.algorithms.advantages import check_choice

Place = Literal["reward", "loss"]
ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


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

    In the reward, k1 summed to go gives the true gradient of the row's KL(policy, reference). In the
    loss, k2 gives the gradient of the token KL(policy, reference) with visited states frozen and k3 that
    of KL(reference, policy). k1 in the loss has no gradient in expectation and k2 or k3 in the reward
    are no KL: both are refused.

    Args:
        coefficient: beta, at least 0. Higher keeps closer to the reference; 0 computes no reference.
        place: "reward" or "loss".
        estimator: "k1" in the reward, "k2" or "k3" in the loss.
        adaptive: moves the coefficient after each rollout; null keeps it.
    """

    beta: Tensor

    def __init__(
        self,
        *,
        coefficient: float = 0.05,
        place: Place = "reward",
        estimator: Literal["k1", "k2", "k3"] = "k1",
        adaptive: Adaptive | None = None,
    ) -> None:
        super().__init__()
        check_choice("algorithm.kl.place", place, get_args(Place))
        check_choice("algorithm.kl.estimator", estimator, tuple(ESTIMATORS))
        if coefficient < 0:
            raise UserError(f"algorithm.kl.coefficient: expected at least 0, got {coefficient}")
        if (place == "reward") != (estimator == "k1"):
            right = "k1" if place == "reward" else "k2 or k3"
            raise UserError(
                f"algorithm.kl.estimator: {estimator} in the {place} is not the gradient of a KL divergence; "
                f"with algorithm.kl.place={place} use {right}"
            )
        if adaptive is not None and not (adaptive.target > 0 and adaptive.horizon > 0):
            raise UserError("algorithm.kl.adaptive: target and horizon must be above 0")
        self.place, self.estimator, self.adaptive = place, estimator, adaptive
        self.active = coefficient > 0
        self.register_buffer("beta", torch.tensor(coefficient, dtype=torch.float64))

    def shape(self, exp: Experience) -> Tensor:
        """The reward `[B, T]` less beta k1 of the tokens that acted, if that is where the penalty stands."""
        if not self.active or self.place != "reward":
            return exp.reward
        acted, reference = _acting(exp), _reference(exp)
        return exp.reward - self.beta.to(exp.reward.dtype) * torch.where(exp.action, k1(acted, reference), 0)

    def in_loss(self, logp: Tensor, exp: Experience) -> Tensor:
        """beta times the estimate for each action token, `[B, T]`, if that is where the penalty stands."""
        if not self.active or self.place != "loss":
            return torch.zeros_like(logp)
        estimate = ESTIMATORS[self.estimator](logp, _reference(exp))
        return self.beta.to(logp.dtype) * torch.where(exp.action, estimate, 0)

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


def _acting(exp: Experience) -> Tensor:
    """Log-probabilities of the policy as it acted."""
    logp = exp.old_logp if exp.old_logp is not None else exp.sampler_logp
    if logp is None:
        raise RuntimeError("a KL penalty needs the log-probabilities of the policy that acted")
    return logp


def _reference(exp: Experience) -> Tensor:
    if exp.ref_logp is None:
        raise RuntimeError("a KL penalty needs the reference's log-probabilities")
    return exp.ref_logp
