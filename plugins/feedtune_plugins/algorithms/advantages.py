"""Advantage estimators: how much better than expected each action token was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from feedtune.distributed import sum_over_ranks
from feedtune.errors import UserError, nearest
from feedtune.experience import Experience
from feedtune.functional import action_index, generalized_advantages, masked_mean, returns_to_go, whiten

Baseline = Literal["none", "mean", "leave_one_out", "running", "value"]


@dataclass(frozen=True)
class Advantages:
    """What an estimator found. Everything is 0 on tokens that are no actions."""

    advantage: Tensor  # [B, T] what the log-probability of each action token is weighted with
    returns: Tensor  # [B, T] what a value head is fitted to
    metrics: Mapping[str, float] = field(default_factory=dict)


class AdvantageEstimator(nn.Module):
    """Turns shaped rewards into advantages, once a rollout. A module, so that statistics are checkpointed."""

    needs_values: ClassVar[bool] = False

    def uses_values(self) -> bool:
        """Whether it reads `exp.extra["value"]`, so that the policy needs a value head."""
        return self.needs_values

    def forward(self, exp: Experience, reward: Tensor) -> Advantages:
        """Advantages of a rollout; `reward` `[B, T]` is the raw reward less any penalty."""
        raise NotImplementedError


class ReturnToGo(AdvantageEstimator):
    """REINFORCE's weight: gamma^t (G_t - b), the discounted return from token t on, less a baseline.

    "none" and "leave_one_out" give the true gradient of the discounted return of a row; "mean" counts
    the row itself and gives (1 - 1/n) of it; "running" is the mean of earlier rollouts and "value" a
    learned V(s_t), neither of which sees the row's own luck (Williams 1992; Kool et al. 2019).

    Args:
        gamma: discount in [0, 1] per action token.
        baseline: "none", "mean", "leave_one_out", "running" or "value".
        scope: rows that "mean" and "leave_one_out" compare: the whole "rollout" or the "group" that
            answers the same prompt.
        decay: of the running baseline, in [0, 1): how much of the old mean is kept after each rollout.
    """

    running: Tensor
    rollouts: Tensor

    def __init__(
        self,
        *,
        gamma: float = 1.0,
        baseline: Baseline = "leave_one_out",
        scope: Literal["rollout", "group"] = "rollout",
        decay: float = 0.9,
    ) -> None:
        super().__init__()
        check_unit("algorithm.advantage.gamma", gamma)
        check_choice("algorithm.advantage.baseline", baseline, get_args(Baseline))
        check_choice("algorithm.advantage.scope", scope, ("rollout", "group"))
        if not 0 <= decay < 1:
            raise UserError(f"algorithm.advantage.decay: expected a number in [0, 1), got {decay}")
        self.gamma, self.baseline, self.scope, self.decay = gamma, baseline, scope, decay
        self.register_buffer("running", torch.zeros((), dtype=torch.float64))
        self.register_buffer("rollouts", torch.zeros((), dtype=torch.int64))

    def uses_values(self) -> bool:
        return self.baseline == "value"

    def forward(self, exp: Experience, reward: Tensor) -> Advantages:
        bootstrap = exp.extra.get("bootstrap")
        returns = returns_to_go(reward, exp.action, self.gamma, bootstrap)  # [B, T]
        total = self._row_return(exp, reward, returns)  # [B]
        baseline = self._baseline(exp, total)  # [B, 1] or [B, T]
        discount = self.gamma ** action_index(exp.action).to(returns.dtype)
        advantage = torch.where(exp.action, discount * (returns - baseline), 0)
        compared = masked_mean(baseline.expand_as(returns), exp.action)
        return Advantages(advantage, returns, {"rollout/baseline": float(compared)})

    @staticmethod
    def _row_return(exp: Experience, reward: Tensor, returns: Tensor) -> Tensor:
        """Return of each row from its first action on; a row without actions has its score."""
        first = exp.action & (exp.action.cumsum(-1) == 1)
        return torch.where(exp.action.any(-1), (returns * first).sum(-1), reward.sum(-1))

    def _baseline(self, exp: Experience, total: Tensor) -> Tensor:
        if self.baseline == "value":
            return exp.extra["value"]
        if self.baseline == "running":
            return self._running_mean(exp, total)
        if self.baseline == "none":
            return torch.zeros_like(total)[:, None]
        return self._mean_of_rows(exp, total)[:, None]

    def _mean_of_rows(self, exp: Experience, total: Tensor) -> Tensor:
        """Mean return of the scored rows in scope, with or without each row's own, `[B]`."""
        count = exp.scored.to(total.dtype)
        sums = torch.stack([count, torch.where(exp.scored, total, 0)])  # [2, B]
        if self.scope == "group":
            _, group = torch.unique(exp.group, return_inverse=True)
            tally = torch.zeros(2, len(exp), dtype=total.dtype, device=total.device)
            sums = tally.index_add(1, group, sums)[:, group]
        else:
            sums = sum_over_ranks(sums.sum(-1, keepdim=True)).expand(2, len(exp))
        others, summed = sums.unbind()
        if self.baseline == "leave_one_out":
            others, summed = others - count, summed - torch.where(exp.scored, total, 0)
        return summed / others.clamp(min=1)

    def _running_mean(self, exp: Experience, total: Tensor) -> Tensor:
        """The mean of earlier rollouts, updated after use; the first rollout has baseline 0."""
        before = self.running.clone()
        here = sum_over_ranks(
            torch.stack([exp.scored.sum(), torch.where(exp.scored, total, 0).sum()]).double()
        )
        mean = here[1] / here[0].clamp(min=1)
        self.running.copy_(mean if self.rollouts == 0 else self.decay * before + (1 - self.decay) * mean)
        self.rollouts += 1
        return before.to(total.dtype).expand(len(total), 1)


class GAE(AdvantageEstimator):
    """Generalized advantage estimation (Schulman et al. 2016), whitened over the rollout if asked.

    The returns that the value head is fitted to come from the unwhitened advantages.

    Args:
        gamma: discount in [0, 1] per action token.
        lam: in [0, 1]; 0 trusts the values, 1 the returns.
        whiten: shift and scale the advantages of all action tokens of the rollout to mean 0 and
            deviation 1 (sample deviation, over all ranks).
    """

    needs_values = True

    def __init__(self, *, gamma: float = 1.0, lam: float = 0.95, whiten: bool = True) -> None:
        super().__init__()
        check_unit("algorithm.advantage.gamma", gamma)
        check_unit("algorithm.advantage.lam", lam)
        self.gamma, self.lam, self.whiten = gamma, lam, whiten

    def forward(self, exp: Experience, reward: Tensor) -> Advantages:
        value, bootstrap = exp.extra["value"], exp.extra["bootstrap"]
        advantage = generalized_advantages(reward, value, exp.action, self.gamma, self.lam, bootstrap)
        returns = advantage + value
        if self.whiten:
            advantage = whiten(advantage, exp.action)
        return Advantages(advantage, returns)


def check_unit(key: str, value: float) -> None:
    """Refuse what is not in [0, 1]."""
    if not 0 <= value <= 1:
        raise UserError(f"{key}: expected a number in [0, 1], got {value}")


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse what is not one of the choices."""
    if value not in choices:
        raise UserError(
            f"{key}: expected one of {', '.join(choices)}, got '{value}'.{nearest(value, choices)}"
        )
