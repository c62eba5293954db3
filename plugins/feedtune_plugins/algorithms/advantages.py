"""Advantage estimators: how much better than expected each action token was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from feedtune.checks import check_choice, check_positive, check_unit, check_used
from feedtune.distributed import sum_over_ranks
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.functional import (
    action_index,
    generalized_advantages,
    masked_mean,
    peer_deviation,
    peer_mean,
    peers_differ,
    returns_to_go,
    whiten,
)

Credit = Literal["to_go", "row"]
Baseline = Literal["none", "mean", "leave_one_out", "running", "value", "greedy"]
Scope = Literal["rollout", "group"]
Scale = Literal["none", "rows", "tokens"]
EPS: Mapping[Scale, float] = {"none": 0.0, "rows": 1e-4, "tokens": 1e-8}


@dataclass(frozen=True)
class Advantages:
    """What an estimator found. Everything is 0 on tokens that are no actions."""

    advantage: Tensor  # [B, T] what the log-probability of each action token is weighted with
    returns: Tensor  # [B, T] what a value head is fitted to
    metrics: Mapping[str, float] = field(default_factory=dict)


class AdvantageEstimator(nn.Module):
    """Turns shaped rewards into advantages, once a rollout. A module, so that statistics are checkpointed."""

    def needs(self) -> frozenset[str]:
        """What it reads beside rewards, as `Algorithm.needs` names it: "values", "greedy", "groups"."""
        return frozenset()

    def absorbs(self) -> frozenset[str]:
        """What every score may be changed by without any advantage changing: "scale" (a factor), "shift"."""
        return frozenset()

    def forward(self, exp: Experience, reward: Tensor) -> Advantages:
        """Advantages of a rollout; `reward` `[B, T]` is the raw reward less any penalty."""
        raise NotImplementedError


class MonteCarlo(AdvantageEstimator):
    """The return that was seen, less a baseline (Williams 1992).

    Credit "to_go" weights token t with gamma^t (G_t - b), where G_t is the discounted return from t on;
    "row" weights every token with R - b, the discounted return of the whole row. Both give the true gradient
    of the expected discounted return for every baseline that knows nothing of the row itself.

    Baselines: "none"; "leave_one_out", the mean return of the other rows (Kool et al. 2019); "mean", which
    counts the row itself and so gives (1 - 1/n) of the gradient (at gamma 1, or with credit "row");
    "running", the mean of earlier rollouts; "value", a learned V(s_t), detached; "greedy", the score of the
    greedy response to the same prompt (ReMax, Li et al. 2023).

    Args:
        credit: "to_go" (less noise where reward comes along the way) or "row".
        gamma: discount in [0, 1] per action token.
        baseline: one of the above.
        scope: rows that "mean", "leave_one_out" and scale "rows" compare: the whole "rollout" or the "group"
            that answers the same prompt. null: the rollout. Other baselines and scales have no use for it.
        decay: of baseline "running", in [0, 1): how much of the old mean each rollout keeps; null: 0.9.
        scale: "none"; "rows" divides by the sample deviation of the returns in scope, plus eps (GRPO), and
            gives 0 to groups whose raw scores are all the same; "tokens" whitens over the action tokens of
            the rollout (REINFORCE++), which takes off what a mean over the rollout would.
        eps: added to the deviation that a scale divides by, above 0; null: 1e-4 of "rows", 1e-8 of "tokens".
    """

    running: Tensor
    rollouts: Tensor

    def __init__(
        self,
        *,
        credit: Credit = "to_go",
        gamma: float = 1.0,
        baseline: Baseline = "leave_one_out",
        scope: Scope | None = None,
        decay: float | None = None,
        scale: Scale = "none",
        eps: float | None = None,
    ) -> None:
        super().__init__()
        check_choice("algorithm.advantage.credit", credit, get_args(Credit))
        check_unit("algorithm.advantage.gamma", gamma)
        check_choice("algorithm.advantage.baseline", baseline, get_args(Baseline))
        check_choice("algorithm.advantage.scale", scale, get_args(Scale))
        if scope is not None:
            check_choice("algorithm.advantage.scope", scope, get_args(Scope))
        if decay is not None and not 0 <= decay < 1:
            raise UserError(f"algorithm.advantage.decay: expected a number in [0, 1), got {decay}")
        if eps is not None:
            check_positive("algorithm.advantage.eps", eps)
        self.compares = baseline in ("mean", "leave_one_out") or scale == "rows"
        comparing = "baseline=mean, baseline=leave_one_out or scale=rows"
        check_used("algorithm.advantage.scope", scope, self.compares, comparing)
        check_used("algorithm.advantage.decay", decay, baseline == "running", "baseline=running")
        check_used("algorithm.advantage.eps", eps, scale != "none", "scale=rows or scale=tokens")
        constant = baseline == "running" or (baseline == "mean" and scope != "group")
        if scale == "tokens" and constant and (gamma == 1 or credit == "row"):
            raise UserError(
                f"algorithm.advantage.baseline: {baseline} over the rollout is the same for all tokens, and "
                "scale=tokens takes their mean off anyway; leave it none"
            )
        self.credit, self.gamma, self.baseline, self.scale = credit, gamma, baseline, scale
        self.scope: Scope = scope or "rollout"
        self.decay = 0.9 if decay is None else decay
        self.eps = EPS[scale] if eps is None else eps
        self.register_buffer("running", torch.zeros((), dtype=torch.float64))
        self.register_buffer("rollouts", torch.zeros((), dtype=torch.int64))

    def needs(self) -> frozenset[str]:
        of_baseline = {"value": {"values"}, "greedy": {"greedy"}}.get(self.baseline, set())
        return frozenset(of_baseline | ({"groups"} if self.compares and self.scope == "group" else set()))

    def absorbs(self) -> frozenset[str]:
        # Learned values and running means compare with what earlier rollouts were worth.
        scale = self.scale != "none" and self.baseline not in ("value", "running")
        whitened = self.baseline == "none" and self.scale == "tokens"
        compared = self.baseline in ("mean", "leave_one_out", "greedy") or whitened
        # A discounted shift is worth less in longer rows.
        shift = compared and self.gamma == 1
        return frozenset({name for name, so in {"scale": scale, "shift": shift}.items() if so})

    def forward(self, exp: Experience, reward: Tensor) -> Advantages:
        returns = returns_to_go(reward, exp.action, self.gamma, exp.extra.get("bootstrap"))  # [B, T]
        total = _row_return(exp, reward, returns)  # [B]
        baseline = self._baseline(exp, total)  # [B, 1] or [B, T]
        compared = masked_mean(baseline.expand_as(returns), exp.action)
        advantage = self._scaled(self._credited(exp, returns, total) - baseline, exp, total)
        if self.credit == "to_go":
            advantage = advantage * self.gamma ** action_index(exp.action).to(returns.dtype)
        advantage = torch.where(exp.action, advantage, 0)
        if self.scale == "tokens":
            advantage = whiten(advantage, exp.action, self.eps)
        return Advantages(advantage, returns, {"rollout/baseline": float(compared)})

    def _credited(self, exp: Experience, returns: Tensor, total: Tensor) -> Tensor:
        return returns if self.credit == "to_go" else total[:, None].expand_as(returns)

    def _peers(self, exp: Experience) -> Tensor | None:
        return exp.group if self.scope == "group" else None

    def _baseline(self, exp: Experience, total: Tensor) -> Tensor:
        if self.baseline == "value":
            return exp.extra["value"]
        if self.baseline == "running":
            return self._running_mean(exp, total)
        if self.baseline == "none":
            return torch.zeros_like(total)[:, None]
        if self.baseline == "greedy":
            return _greedy_score(exp).to(total.dtype)[:, None]
        others = self.baseline == "leave_one_out"
        return peer_mean(total, exp.scored, self._peers(exp), leave_one_out=others)[:, None]

    def _scaled(self, advantage: Tensor, exp: Experience, total: Tensor) -> Tensor:
        if self.scale != "rows":
            return advantage
        # In float64: in float32 the deviation of almost equal returns is mostly rounding error.
        deviation = peer_deviation(total.double(), exp.scored, self._peers(exp)).to(total.dtype)
        differ = peers_differ(exp.score, exp.scored, self._peers(exp))  # raw: penalties do not count
        return torch.where(differ[:, None], advantage / (deviation + self.eps)[:, None], 0)

    def _running_mean(self, exp: Experience, total: Tensor) -> Tensor:
        """The mean of earlier rollouts, updated after use; the first rollout has baseline 0."""
        before = self.running.clone()
        here = sum_over_ranks(
            torch.stack([exp.scored.sum(), torch.where(exp.scored, total, 0).sum()]).double()
        )
        if here[0] > 0:  # a rollout without a score says nothing
            mean = here[1] / here[0]
            kept = self.decay * before + (1 - self.decay) * mean
            self.running.copy_(mean if self.rollouts == 0 else kept)
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

    def __init__(self, *, gamma: float = 1.0, lam: float = 0.95, whiten: bool = True) -> None:
        super().__init__()
        check_unit("algorithm.advantage.gamma", gamma)
        check_unit("algorithm.advantage.lam", lam)
        self.gamma, self.lam, self.whiten = gamma, lam, whiten

    def needs(self) -> frozenset[str]:
        return frozenset({"values"})

    def forward(self, exp: Experience, reward: Tensor) -> Advantages:
        value, bootstrap = exp.extra["value"], exp.extra["bootstrap"]
        advantage = generalized_advantages(reward, value, exp.action, self.gamma, self.lam, bootstrap)
        returns = advantage + value
        if self.whiten:
            advantage = whiten(advantage, exp.action)
        return Advantages(advantage, returns)


def _row_return(exp: Experience, reward: Tensor, returns: Tensor) -> Tensor:
    """Return of each row from its first action on, `[B]`; a row without actions has its score."""
    first = exp.action & (exp.action.cumsum(-1) == 1)
    return torch.where(exp.action.any(-1), (returns * first).sum(-1), reward.sum(-1))


def _greedy_score(exp: Experience) -> Tensor:
    """The greedy response's score, `[B]`; where the source had no opinion, the mean of those it had."""
    found = exp.extra["greedy"]
    others = peer_mean(found.nan_to_num(0.0), ~found.isnan(), None)
    return torch.where(found.isnan(), others, found)
