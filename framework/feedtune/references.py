"""References: what the policy is compared with."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from feedtune.contracts import Reference
from feedtune.experience import Experience
from feedtune.policy import Policy
from feedtune.scoring import score_actions


class FrozenCopy(nn.Module):
    """The policy as it was when training began, in memory of its own."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = copy.deepcopy(policy).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenCopy:
        """Stays in evaluation mode: a reference without dropout is the same at every call."""
        return super().train(False)

    @torch.no_grad()
    def logp(self, exp: Experience) -> Tensor:
        """Log-probabilities `[B, T]` of the action tokens; 0 elsewhere."""
        return score_actions(self.policy, exp, with_entropy=False).logp


class AdapterOff(nn.Module):
    """The policy with its adapter switched off: a reference that costs no memory (LoRA)."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self._policy: list[Any] = [policy]  # in a list: not a submodule, or its weights would be saved twice

    @torch.no_grad()
    def logp(self, exp: Experience) -> Tensor:
        """Log-probabilities `[B, T]` of the action tokens; 0 elsewhere."""
        policy: Policy = self._policy[0]
        off = policy.backbone.adapter_off
        if off is None:
            raise RuntimeError("AdapterOff needs a backbone with adapter_off")
        with off():
            return score_actions(policy, exp, with_entropy=False).logp


def reference_of(policy: Policy) -> Reference:
    """The cheapest reference that equals this policy as it is now."""
    return FrozenCopy(policy) if policy.backbone.adapter_off is None else AdapterOff(policy)
