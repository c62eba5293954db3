"""Learning from preferences: groups of two rows, the better-scored of which is the chosen response.

Whether the pairs were read (`collector=pairs`) or sampled and scored (`collector=generate` with groups of
two) makes no difference here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from feedtune.checks import check_choice, check_not_negative, check_positive
from feedtune.contracts import Algorithm, Backbone, Loss
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.functional import dpo_loss, hinge_loss, ipo_loss, pairs_of, pairwise_reward_loss
from feedtune.policy import Policy
from feedtune.scoring import row_rewards, score_actions

PreferenceLoss = Literal["sigmoid", "cdpo", "hinge", "ipo"]
LOSSES: Mapping[PreferenceLoss, Callable[[Tensor, float, float], Tensor]] = {
    "sigmoid": dpo_loss,
    "cdpo": dpo_loss,
    "hinge": hinge_loss,
    "ipo": ipo_loss,
}
CDPO_SMOOTHING = 0.1


class FromPairs(Algorithm):
    """What learning from pairs shares: which pairs there are, and which of them say something."""

    def prepare(self, exp: Experience, policy: Policy) -> tuple[Experience, Mapping[str, float]]:
        """Take the actions of pairs that say nothing: of equal scores, without a score, or without an answer.

        What is left has two rows with actions a pair, which is how the loss's denominator counts pairs.
        """
        chosen, rejected = _pairs(exp)
        says = (exp.score[chosen] > exp.score[rejected]) & exp.scored[chosen] & exp.scored[rejected]
        says &= exp.action[chosen].any(-1) & exp.action[rejected].any(-1)
        kept = torch.zeros_like(exp.scored)
        kept[chosen], kept[rejected] = says, says
        share = float(says.sum()) / max(1, len(says))
        return replace(exp, action=exp.action & kept[:, None]), {"rollout/dropped_pairs": 1 - share}

    def pairs(self, exp: Experience) -> tuple[Tensor, Tensor]:
        """The chosen and the rejected rows `[P]` of the pairs that are left."""
        chosen, rejected = _pairs(exp)
        left = exp.action[chosen].any(-1)
        return chosen[left], rejected[left]


class DirectPreference(FromPairs):
    """Raises the log-probability of chosen responses over that of rejected ones, against a reference.

    Args:
        loss: of the policy's lead beta delta. "sigmoid" is DPO; "cdpo" the same with labels that may be the
            wrong way round; "hinge" (SLiC, RSO) is content with a lead of 1; "ipo" wants delta = 1/(2 beta).
        beta: above 0; higher keeps closer to the reference.
        label_smoothing: probability, in [0, 0.5), that a label is the wrong way round. null: 0, and 0.1
            under "cdpo".
        temperature: divides the logits everywhere; above 0.
    """

    def __init__(
        self,
        *,
        loss: PreferenceLoss = "sigmoid",
        beta: float = 0.1,
        label_smoothing: float | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        check_choice("algorithm.loss", loss, get_args(PreferenceLoss))
        check_positive("algorithm.beta", beta)
        check_positive("algorithm.temperature", temperature)
        smoothing = CDPO_SMOOTHING * (loss == "cdpo") if label_smoothing is None else label_smoothing
        if not 0 <= smoothing < 0.5:
            raise UserError(f"algorithm.label_smoothing: expected a number in [0, 0.5), got {smoothing}")
        if loss == "cdpo" and not smoothing:
            raise UserError("algorithm.label_smoothing: cdpo with 0 is sigmoid; give more, or choose that")
        self.kind, self.beta, self.label_smoothing, self.temperature = loss, beta, smoothing, temperature

    def needs(self) -> frozenset[str]:
        return frozenset({"reference"})

    def build_policy(self, make_backbone: Callable[[], Backbone]) -> Policy:
        return Policy(make_backbone(), temperature=self.temperature)

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        if exp.ref_logp is None:
            raise RuntimeError("preferences are measured against a reference")
        logp = score_actions(policy, exp, with_entropy=False).logp  # [B, T]
        lead = torch.where(exp.action, logp - exp.ref_logp, 0).sum(-1)  # [B]: log pi / pi_ref of each row
        chosen, rejected = self.pairs(exp)
        delta = lead[chosen] - lead[rejected]  # [P]
        losses = LOSSES[self.kind](delta, self.beta, self.label_smoothing)
        metrics = _metrics("loss/policy", losses, "policy", self.beta * delta)
        return Loss(losses.sum(), exp.row_count / 2, metrics)


class RewardModelling(FromPairs):
    """Fits a scalar head, named "reward", so that it scores chosen responses above rejected ones.

    The head reads the hidden state of a row's last real token: the whole response has been read. It knows
    rewards up to a constant for each prompt.

    Args:
        margin: the lead that is asked for, in units of the difference of the pair's scores; at least 0.
            0 asks for the right order alone.
        centering: weight of (s_chosen + s_rejected)^2, at least 0: the constant becomes that with which the
            rewards of a prompt's responses have mean 0 (Eisenstein et al. 2023, arXiv:2312.09244).
    """

    def __init__(self, *, margin: float = 0.0, centering: float = 0.0) -> None:
        super().__init__()
        check_not_negative("algorithm.margin", margin)
        check_not_negative("algorithm.centering", centering)
        self.margin, self.centering = margin, centering

    def build_policy(self, make_backbone: Callable[[], Backbone]) -> Policy:
        return Policy(make_backbone(), heads={"reward": 1})

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        rewards = row_rewards(policy, exp)
        chosen, rejected = self.pairs(exp)
        margin = self.margin * (exp.score[chosen] - exp.score[rejected])
        losses = pairwise_reward_loss(rewards[chosen], rewards[rejected], margin)  # [P]
        losses = losses + self.centering * (rewards[chosen] + rewards[rejected]).square()
        metrics = _metrics("loss/reward", losses, "reward", rewards[chosen] - rewards[rejected])
        return Loss(losses.sum(), exp.row_count / 2, metrics)


def _pairs(exp: Experience) -> tuple[Tensor, Tensor]:
    try:
        return pairs_of(exp.score, exp.group)
    except ValueError as error:
        raise UserError(
            f"learning from preferences takes groups of two rows, but {error}: use collector=pairs, or "
            "collector=generate with collector.group_size=2, and a buffer that keeps groups whole"
        ) from error


def _metrics(name: str, losses: Tensor, of: str, lead: Tensor) -> dict[str, Tensor]:
    """Means over the pairs of a minibatch; nothing where there is none (see rollout/dropped_pairs)."""
    if not len(losses):
        return {}
    return {
        name: losses.detach().mean(),
        f"{of}/preference_accuracy": (lead > 0).to(lead.dtype).mean(),
        f"{of}/margin": lead.detach().mean(),
    }
