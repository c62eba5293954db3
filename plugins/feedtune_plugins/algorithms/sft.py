"""Imitation: maximum likelihood of the tokens that were chosen (pretraining and supervised tuning)."""

from __future__ import annotations

from collections.abc import Callable

from feedtune.contracts import Algorithm, Backbone, Loss
from feedtune.experience import Experience
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
