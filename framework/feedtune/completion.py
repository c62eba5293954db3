"""What an algorithm needs beside the rows themselves, added to a rollout: nothing else is computed."""

from __future__ import annotations

from dataclasses import replace

import torch

from feedtune.contracts import Reference
from feedtune.experience import Experience
from feedtune.policy import Policy
from feedtune.profiling import timed
from feedtune.scoring import head_values, score_actions

SUPPLIES = frozenset({"reference", "old_logp", "values"})
"""What `complete` can add; the rest of an algorithm's needs comes from the collector."""


@torch.no_grad()
def complete(
    exp: Experience,
    needs: frozenset[str],
    policy: Policy,
    reference: Reference | None = None,
    sampler_exact: bool = False,
) -> Experience:
    """A rollout with what `Algorithm.needs` names, from the policy as it is now.

    Args:
        exp: as it was collected, on the policy's device.
        needs: of the algorithm.
        policy: in evaluation mode.
        reference: for "reference".
        sampler_exact: whether the sampler's own log-probabilities are those of a pass over whole rows, so
            that they can serve as the old ones.
    """
    if "reference" in needs and reference is not None:
        with timed("reference"):
            exp = replace(exp, ref_logp=reference.logp(exp))
    if "old_logp" in needs and sampler_exact:
        exp = replace(exp, old_logp=exp.sampler_logp)
    wants_logp = "old_logp" in needs and exp.old_logp is None
    if not wants_logp and "values" not in needs:
        return exp
    scores = score_actions(policy, exp, with_entropy=False)
    if wants_logp:
        exp = replace(exp, old_logp=scores.logp)
    if "values" in needs:
        value, bootstrap = head_values(policy, "value", exp, scores.hidden)
        exp = exp.with_(value=value, bootstrap=bootstrap)
    return exp


def logp_drift(exp: Experience) -> dict[str, float]:
    """How far the sampler's log-probabilities are from those of a pass over whole rows, as a metric.

    `rollout/logp_drift` is the mean absolute difference in nats an action token. Nothing where only one of
    the two is known: in float32 the sampler's own serve as the old ones.
    """
    ours, theirs = exp.old_logp, exp.sampler_logp
    if ours is None or theirs is None or ours is theirs or not exp.action.any():
        return {}
    return {"rollout/logp_drift": float((ours - theirs)[exp.action].abs().mean())}
