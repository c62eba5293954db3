"""Length and KL of the responses that are kept as text."""

from __future__ import annotations

from dataclasses import replace

import torch

from feedtune.contracts import Rollout
from feedtune.experience import Experience, from_rows
from feedtune.totals import with_totals

RECORDS = [{"response": "x"}, {"response": "y"}]


def experience() -> Experience:
    """Rows of three, two and no action tokens."""
    exp = from_rows([[5, 6, 7, 8], [5, 8, 9], [5]], [[0, 1, 1, 1], [0, 1, 1], [0]], scores=[1.0, 2.0, 0.0])
    acted = torch.tensor([[9.0, -1.0, -2.0, -3.0], [9.0, -1.0, -0.5, 9.0], [9.0] * 4])  # 9: of no action
    return replace(exp, sampler_logp=acted)


def test_sums_over_the_tokens_of_the_row_that_each_record_is_of() -> None:
    """Against a reference of -1 everywhere: row 0 (0) + (-1) + (-2) = -3, row 1 (0) + (0.5) = 0.5."""
    rollout = Rollout(experience(), {}, RECORDS, [1, 0])
    exp = replace(rollout.experience, ref_logp=torch.full((3, 4), -1.0))
    assert with_totals(RECORDS, rollout, exp) == [
        {"response": "x", "length": 2, "kl_total": 0.5},
        {"response": "y", "length": 3, "kl_total": -3.0},
    ]


def test_the_trainers_own_log_probabilities_come_first() -> None:
    """Where they were computed they are what ratios divide by."""
    rollout = Rollout(experience(), {}, RECORDS[:1], [0])
    exp = replace(rollout.experience, old_logp=torch.zeros(3, 4), ref_logp=torch.full((3, 4), -1.0))
    assert with_totals(RECORDS[:1], rollout, exp) == [{"response": "x", "length": 3, "kl_total": 3.0}]


def test_what_is_not_known_is_not_said() -> None:
    rollout = Rollout(experience(), {}, RECORDS, [0, 2])
    without_reference = with_totals(RECORDS, rollout, rollout.experience)
    assert without_reference == [{"response": "x", "length": 3}, {"response": "y"}]
    unnamed = Rollout(experience(), {}, RECORDS)
    assert with_totals(RECORDS, unnamed, unnamed.experience) == RECORDS
