"""Target networks: a slower copy of what is learnt, for values that do not chase themselves."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from feedtune.contracts import Backbone
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.policy import Policy
from feedtune.reading import read


class TargetNetwork(nn.Module):
    """A frozen copy of a policy's backbone and heads that follows them.

    In one go every so often (Mnih et al. 2015) or a little each time (Lillicrap et al. 2016). The backbone is
    copied too: heads that read the moving backbone's hidden states would move with it.

    Args:
        polyak: share of the way that the copy moves each time, in (0, 1]; 1 copies (a hard update).
        every: optimiser steps between two moves, at least 1. Larger is slower.
    """

    steps: Tensor
    backbone: Backbone
    heads: nn.ModuleDict

    def __init__(self, *, polyak: float = 0.1, every: int = 1) -> None:
        super().__init__()
        if not 0 < polyak <= 1:
            raise UserError(f"algorithm.target.polyak: expected a number in (0, 1], got {polyak}")
        if every < 1:
            raise UserError(f"algorithm.target.every: expected at least 1, got {every}")
        self.polyak, self.every = polyak, every
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def start(self, policy: Policy) -> None:
        """Copy the policy as it is now."""
        self.backbone = copy.deepcopy(policy.backbone).requires_grad_(False).eval()
        self.heads = copy.deepcopy(policy.heads).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> TargetNetwork:
        """Stays in evaluation mode: targets have no dropout."""
        return super().train(False)

    @torch.no_grad()
    def read(self, exp: Experience) -> Tensor:
        """Hidden states `[B, T, H]` of the copy (see `feedtune.reading.read`)."""
        return read(self.backbone, exp)

    @torch.no_grad()
    def follow(self, policy: Policy) -> None:
        """After an optimiser step: move, if it is time. Weights that are not trained stay as they are."""
        self.steps += 1
        if self.steps % self.every:
            return
        for mine, theirs in ((self.backbone, policy.backbone), (self.heads, policy.heads)):
            for old, new in zip(mine.parameters(), theirs.parameters(), strict=True):
                if new.requires_grad:
                    old.lerp_(new, self.polyak)
