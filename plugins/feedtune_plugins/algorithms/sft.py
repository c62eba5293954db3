"""Imitation: maximum likelihood of the tokens that were chosen, of all rows or of the best ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from feedtune.checks import check_positive
from feedtune.contracts import Algorithm, Backbone, Loss, mean_of_scored
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.functional import best_of_groups
from feedtune.policy import Policy
from feedtune.scoring import score_actions


class SupervisedTuning(Algorithm):
    """-log pi of every action token, averaged over the tokens of the optimiser step.

    On all tokens of plain text this is pretraining, on the assistant's turns supervised tuning.
    """

    def build_policy(self, make_backbone: Callable[[], Backbone]) -> Policy:
        return Policy(make_backbone())

    def loss(self, exp: Experience, policy: Policy) -> Loss:
        nll = -score_actions(policy, exp, with_entropy=False).logp.sum()
        return Loss(nll, exp.token_count, {"loss/policy": nll.detach() / exp.action.sum().clamp(min=1)})


class FilteredImitation(SupervisedTuning):
    """Imitates the best-scored responses of each group, and forgets the others.

    With one kept of each group this is best-of-n, with more of larger groups RAFT.

    Args:
        keep: responses of a group that are imitated; earlier ones win ties, and rows without a score are
            never among them. More learns from more, and from worse.
        temperature: divides the logits everywhere; above 0. Higher draws more varied responses.
    """

    def __init__(self, *, keep: int = 1, temperature: float = 1.0) -> None:
        super().__init__()
        if keep < 1:
            raise UserError(f"algorithm.keep: expected at least 1, got {keep}")
        check_positive("algorithm.temperature", temperature)
        self.keep, self.temperature = keep, temperature

    def needs(self) -> frozenset[str]:
        return frozenset({"groups"})

    def build_policy(self, make_backbone: Callable[[], Backbone]) -> Policy:
        return Policy(make_backbone(), temperature=self.temperature)

    def prepare(self, exp: Experience, policy: Policy) -> tuple[Experience, Mapping[str, float]]:
        """Take the actions of all rows but the best.

        Raises:
            UserError: no group has more rows than are kept, so nothing would be filtered.
        """
        largest = int(torch.unique(exp.group, return_counts=True)[1].max())
        if largest <= self.keep:
            raise UserError(
                f"algorithm.keep: {self.keep} of {largest} responses to a prompt is all of them, and "
                f"nothing is filtered; lower it, or set collector.group_size above {self.keep}"
            )
        best = best_of_groups(exp.score, exp.scored, exp.group, self.keep)
        kept_reward = mean_of_scored(exp.score[best])
        return replace(exp, action=exp.action & best[:, None]), {"rollout/kept_reward": kept_reward}
