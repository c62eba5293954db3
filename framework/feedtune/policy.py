"""The policy: a backbone, the heads an algorithm asked for, and the distribution that acts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from feedtune.contracts import Backbone, State


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are.

    >>> at_least_float32(torch.zeros(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


class Policy(nn.Module):
    """A language model that acts: `action_logits` is the distribution it samples from.

    Temperature divides the logits everywhere (sampling, old, new and reference log-probabilities), so
    that ratios and KL speak of the policy that acts.

    Args:
        backbone: reads tokens.
        heads: outputs of each named head on the hidden states, such as `{"value": 1}`. Heads start at 0.
        temperature: divides the logits; above 0. Higher is more random.
        towers: further backbones by name, such as a critic of its own. A head reads the tower of its name if
            there is one, and the backbone otherwise.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: Mapping[str, int] | None = None,
        temperature: float = 1.0,
        towers: Mapping[str, Backbone] | None = None,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(
                f"temperature must be above 0, got {temperature}; for greedy decoding pass greedy=True"
            )
        self.backbone = backbone
        self.temperature = temperature
        sizes = dict(heads or {})
        self.towers = nn.ModuleDict(dict(towers or {}))
        self.heads = nn.ModuleDict({name: self.read_by(name).head(size) for name, size in sizes.items()})
        self.config: dict[str, Any] = {"heads": sizes, "temperature": temperature}
        """Plain keyword arguments that, with a backbone and the towers, build this policy again."""

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Read tokens `[B, T]`: hidden `[B, T, H]` and the new state (see `Backbone.forward`)."""
        hidden, state = self.backbone(tokens, mask, state)
        return hidden, state

    def select(self, state: State, rows: Tensor) -> State:
        """A copy of the state with these rows `[R]` int64 (see `Backbone.select`)."""
        return self.backbone.select(state, rows)

    def read_by(self, head: str) -> Backbone:
        """The backbone whose hidden states a head reads."""
        towers = dict(self.towers.items())
        tower = towers.get(head, self.backbone)
        assert isinstance(tower, Backbone)
        return tower

    def action_logits(self, hidden: Tensor) -> Tensor:
        """Logits `[..., V]` of the distribution that acts after these hidden states `[..., H]`.

        In float32, or float64 where the backbone is: log-softmax is never taken in half precision.
        """
        logits = at_least_float32(self.backbone.unembed(hidden))
        return logits if self.temperature == 1 else logits / self.temperature

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by name of the part, so that heads can have their own learning rate."""
        groups = {"backbone": list(self.backbone.parameters())}
        for name, part in [*self.towers.items(), *self.heads.items()]:
            groups[name] = groups.get(name, []) + list(part.parameters())
        trainable = {name: [p for p in ps if p.requires_grad] for name, ps in groups.items()}
        return {name: ps for name, ps in trainable.items() if ps}
