"""How well a policy tells which of two answers is preferred, and whether it knows how sure it can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from feedtune.contracts import Row
from feedtune.experience import Experience, from_rows
from feedtune.functional import brier_score, expected_calibration_error, reliability_curve
from feedtune.policy import Policy
from feedtune.row_scores import rewards, sum_logp
from feedtune.text.codec import Codec

BINS = 10
"""Of the reliability curve, between a probability of 1/2 and 1."""


@dataclass(frozen=True)
class PreferenceMetrics:
    """Numbers of held-out pairs, and the reliability curve that some of them sum up."""

    metrics: dict[str, float] = field(default_factory=dict)
    reliability: list[dict[str, float]] = field(default_factory=list)
    """Of each bin that holds pairs: `predicted` and `observed` share that is ranked right, `pairs`."""


def preference_metrics(
    policy: Policy, reference: Policy | None, codec: Codec, rows: Sequence[Row]
) -> PreferenceMetrics:
    """What the policy makes of those rows that are pairs; nothing where it has no way to rank them.

    A policy with a head "reward" ranks by that; its probabilities, sigma of the lead, can be checked.
    Another ranks by the log-ratio to the reference, whose scale (beta) is not known here.
    """
    pairs = [row for row in rows if "chosen" in row and "rejected" in row]
    judges = "reward" in policy.heads
    if not pairs or not (judges or reference):
        return PreferenceMetrics()
    exp = _answers(policy, codec, pairs)
    if exp is None:
        return PreferenceMetrics()
    if judges:
        return judged(_lead(rewards(policy, exp)))
    assert reference is not None
    return PreferenceMetrics(_accuracy(_lead(sum_logp(policy, exp) - sum_logp(reference, exp))))


def judged(lead: Tensor) -> PreferenceMetrics:
    """Accuracy, calibration error and Brier score of a reward model, and its reliability curve.

    A pair is a bet, of probability sigma(|lead|), on the answer with the higher reward. Which answer stands
    first says nothing, so that each bet is counted from its likelier side.

    Args:
        lead: `[P]` float64, of the chosen answer's reward over the rejected one's.

    >>> found = judged(torch.tensor([3.0, 1 / 3], dtype=torch.float64).log())  # two bets of 3/4, one is lost
    >>> [round(value, 4) for value in found.metrics.values()]
    [0.5, 0.25, 0.3125]
    >>> [{name: round(value, 4) for name, value in one.items()} for one in found.reliability]
    [{'predicted': 0.75, 'observed': 0.5, 'pairs': 2}]
    """
    probability = lead.sigmoid()  # [P] that the chosen one is preferred, which it is
    metrics = _accuracy(lead)
    if bool(lead.isnan().any()):  # diverged: there is no curve
        nothing = dict.fromkeys(("eval/preference_calibration_error", "eval/preference_brier"), math.nan)
        return PreferenceMetrics(metrics | nothing)
    curve = reliability_curve(torch.maximum(probability, 1 - probability), _right(lead), BINS, lowest=0.5)
    metrics["eval/preference_calibration_error"] = float(expected_calibration_error(*curve))
    metrics["eval/preference_brier"] = float(brier_score(probability, torch.ones_like(probability)))
    names = ("predicted", "observed", "pairs")
    listed = zip(*(column.tolist() for column in curve), strict=True)
    return PreferenceMetrics(metrics, [dict(zip(names, one, strict=True)) for one in listed])


def _answers(policy: Policy, codec: Codec, pairs: Sequence[Row]) -> Experience | None:
    """Chosen and rejected answers in turn, of those pairs that fit."""
    limit = policy.backbone.context_length or math.inf
    kept = [pair for pair in codec.pairs(pairs) if max(len(answer.tokens) for answer in pair) <= limit]
    answers = [answer for pair in kept for answer in pair]
    return from_rows([a.tokens for a in answers], [a.action for a in answers]) if answers else None


def _lead(worth: Tensor) -> Tensor:
    """Of the chosen answers over the rejected ones, `[P]`, of the worth `[2P]` of both in turn."""
    return worth[0::2] - worth[1::2]


def _right(lead: Tensor) -> Tensor:
    """1 where the chosen answer is ranked first, half a point where both are equal; NaN stays NaN."""
    return torch.where(lead.isnan(), lead, (lead > 0).to(lead) + (lead == 0).to(lead) / 2)


def _accuracy(lead: Tensor) -> dict[str, float]:
    return {"eval/preference_accuracy": float(_right(lead).mean())}
