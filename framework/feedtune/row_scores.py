"""What a policy says of whole rows that are already there, a few of them at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from feedtune.experience import Experience
from feedtune.policy import Policy
from feedtune.scoring import row_rewards, score_actions

ROWS_AT_ONCE = 64


@torch.no_grad()
def sum_logp(policy: Policy, exp: Experience) -> Tensor:
    """Log-probability of each row's action tokens, `[B]` float64 on the CPU."""
    parts = [score_actions(policy, part, with_entropy=False).logp for part in _parts(policy, exp)]
    return torch.cat([part.double().sum(-1).cpu() for part in parts])


@torch.no_grad()
def rewards(policy: Policy, exp: Experience) -> Tensor:
    """What the head "reward" says of each row, `[B]` float64 on the CPU."""
    return torch.cat([row_rewards(policy, part).double().cpu() for part in _parts(policy, exp)])


def _parts(policy: Policy, exp: Experience) -> Iterator[Experience]:
    """A few rows at a time, where the policy is."""
    device = next(policy.parameters()).device
    for start in range(0, len(exp), ROWS_AT_ONCE):
        yield exp[slice(start, start + ROWS_AT_ONCE)].trim().to(device)
