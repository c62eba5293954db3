"""What laws of algorithms are tried on and compare: policy and reference, and what comes of a rollout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from feedtune.contracts import Algorithm
from feedtune.policy import Policy
from feedtune.references import FrozenCopy
from feedtune.testing.sameness import close


@dataclass
class Stage:
    """An algorithm with its policy and reference, all with random weights, before a rollout."""

    algorithm: Algorithm
    policy: Policy
    reference: FrozenCopy


@dataclass
class Outcome:
    """What an algorithm makes of a rollout."""

    loss: Tensor
    gradients: dict[str, Tensor]
    metrics: dict[str, float]
    state: dict[str, Tensor]


def nudge(module: nn.Module, seed: int, size: float) -> None:
    """Move every trainable weight by a random amount: a step that nobody asked for."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape, generator=random, dtype=torch.float64)  # alike in all types
                weight.add_((size * noise).to(weight.device, weight.dtype))


def all_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], within: float, what: str) -> None:
    assert found.keys() == expected.keys(), f"{what}: {sorted(found)} and {sorted(expected)}"
    for name, value in expected.items():
        equal(found[name], value, within, f"{what} {name}")


def equal(found: Tensor, expected: Tensor, within: float, what: str) -> None:
    close(found, expected, within, what)
