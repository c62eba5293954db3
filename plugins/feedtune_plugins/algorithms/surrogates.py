"""Surrogates: how advantages weigh the tokens of a policy that may have moved since it acted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from feedtune.checks import check_choice, check_not_negative, check_positive, check_unit
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.functional import capped_weight_loss, clipped_surrogate, masked_mean, row_ratio

Level = Literal["token", "row"]


class Surrogate(ABC):
    """Turns log-probabilities `[B, T]` and `exp.extra["advantage"]` into a loss for each action token."""

    @abstractmethod
    def __call__(self, logp: Tensor, exp: Experience) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss `[B, T]` (anything on tokens that are no actions), and metrics."""


@dataclass(frozen=True, kw_only=True)
class Clip(Surrogate):
    """PPO's trust region on the ratio pi / pi_old (Schulman et al. 2017).

    Args:
        low, high: the ratio pays only within [1 - low, 1 + high]. Wider learns faster and strays further;
            a larger `high` lets rare tokens gain more than they may lose (DAPO).
        dual: above 1, bounds what a token of negative advantage can cost; null: no bound.
        level: "token": every token has its ratio; "row": all tokens of a row share the geometric mean of
            theirs (GSPO, Zheng et al. 2025), for which the bounds are far narrower.
    """

    low: float = 0.2
    high: float = 0.2
    dual: float | None = None
    level: Level = "token"

    def __post_init__(self) -> None:
        check_unit("algorithm.surrogate.low", self.low)
        check_not_negative("algorithm.surrogate.high", self.high)
        if self.dual is not None and self.dual <= 1:
            raise UserError(f"algorithm.surrogate.dual: expected a number above 1, got {self.dual}")
        check_choice("algorithm.surrogate.level", self.level, get_args(Level))

    def __call__(self, logp: Tensor, exp: Experience) -> tuple[Tensor, dict[str, Tensor]]:
        log_ratio = _log_ratio(logp, exp)
        ratio = row_ratio(log_ratio, exp.action) if self.level == "row" else log_ratio.exp()
        loss = clipped_surrogate(ratio, exp.extra["advantage"], self.low, self.high, self.dual)
        outside = (ratio < 1 - self.low) | (ratio > 1 + self.high)
        return loss, _ratio_metrics(ratio, outside, exp)


@dataclass(frozen=True, kw_only=True)
class CappedWeight(Surrogate):
    """CISPO's importance weight, capped and detached, before log pi (MiniMax 2025).

    Args:
        cap: largest ratio pi / pi_old that weighs a token, above 0. It is the ratio itself; where papers
            write 1 + eps, give that sum.
    """

    cap: float = 5.0

    def __post_init__(self) -> None:
        check_positive("algorithm.surrogate.cap", self.cap)

    def __call__(self, logp: Tensor, exp: Experience) -> tuple[Tensor, dict[str, Tensor]]:
        ratio = _log_ratio(logp, exp).exp()
        loss = capped_weight_loss(logp, ratio, exp.extra["advantage"], self.cap)
        return loss, _ratio_metrics(ratio, ratio > self.cap, exp)


def log_likelihood(logp: Tensor, exp: Experience) -> tuple[Tensor, dict[str, Tensor]]:
    """-A log pi: the score function's loss, for a policy that has not moved (REINFORCE, A2C)."""
    return -exp.extra["advantage"] * logp, {}


def _log_ratio(logp: Tensor, exp: Experience) -> Tensor:
    """log pi / pi_old of action tokens, `[B, T]`; 0 elsewhere."""
    if exp.old_logp is None:
        raise RuntimeError("a ratio needs old log-probabilities")
    return torch.where(exp.action, logp - exp.old_logp, 0)


def _ratio_metrics(ratio: Tensor, outside: Tensor, exp: Experience) -> dict[str, Tensor]:
    return {
        "policy/ratio": masked_mean(ratio, exp.action).detach(),
        "policy/clip_fraction": masked_mean(outside.to(ratio.dtype), exp.action),
    }
