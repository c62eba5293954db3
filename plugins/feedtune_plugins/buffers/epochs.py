"""On-policy buffer: a rollout is used for a few passes and then forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from feedtune.contracts import Buffer
from feedtune.errors import UserError
from feedtune.experience import Experience


class Epochs(Buffer):
    """Every row of the last collection, in shuffled minibatches, for some passes.

    Groups (rows that answer the same prompt) are shuffled and split as wholes, as evenly as may be.

    Args:
        passes: times each row is used. More learns more from a rollout and strays further from it.
        minibatches: parts a pass is split into, one optimiser step each; at most the number of groups.
    """

    def __init__(self, *, passes: int = 1, minibatches: int = 1) -> None:
        for name, value in {"passes": passes, "minibatches": minibatches}.items():
            if value < 1:
                raise UserError(f"buffer.{name}: expected at least 1, got {value}")
        self.passes, self.per_pass = passes, minibatches
        self._exp: Experience | None = None

    def steps(self, rows: int) -> int:
        if rows < self.per_pass:
            raise UserError(
                f"buffer.minibatches: {self.per_pass} are more than the {rows} rows of a collection"
            )
        return self.passes * self.per_pass

    def add(self, exp: Experience) -> None:
        groups = len(torch.unique(exp.group))
        if groups < self.per_pass:
            raise UserError(
                f"buffer.minibatches: {self.per_pass} are more than the {groups} groups of a collection"
            )
        self._exp = exp

    def minibatches(self, generator: torch.Generator) -> Iterator[Experience]:
        exp = self._exp
        if exp is None:
            raise RuntimeError("minibatches() before add()")
        for _ in range(self.passes):
            for rows in split_groups(exp.group, self.per_pass, generator):
                yield exp[rows.to(exp.tokens.device)].trim()

    def state_dict(self) -> dict[str, Any]:
        return {} if self._exp is None else {"exp": self._exp.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._exp = Experience.from_state_dict(state["exp"]) if state else None


def split_groups(group: Tensor, parts: int, generator: torch.Generator) -> list[Tensor]:
    """Row numbers of each part: whole groups in random order, the rows of a group as they were.

    >>> parts = split_groups(torch.tensor([7, 7, 3, 3]), 2, torch.Generator().manual_seed(0))
    >>> sorted(part.tolist() for part in parts)
    [[0, 1], [2, 3]]
    """
    _, index = torch.unique(group.cpu(), return_inverse=True)  # [B] 0 .. G-1
    order = torch.randperm(int(index.max()) + 1, generator=generator)
    return [
        torch.cat([(index == g).nonzero().squeeze(-1) for g in part]) for part in order.tensor_split(parts)
    ]
