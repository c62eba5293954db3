"""On-policy buffer: a rollout is used for a few passes and then forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from feedtune.contracts import Buffer
from feedtune.errors import UserError
from feedtune.experience import Experience


class Epochs(Buffer):
    """Every row of the last collection, in shuffled minibatches, for some passes.

    Groups (rows that answer the same prompt) are shuffled and split as wholes.

    Args:
        passes: times each row is used. More learns more from a rollout and strays further from it.
        minibatch_size: rows of a minibatch; null takes the whole rollout at once. It must divide the
            rows of a collection, so that every step weighs the same.
    """

    def __init__(self, *, passes: int = 1, minibatch_size: int | None = None) -> None:
        if passes < 1:
            raise UserError(f"buffer.passes: expected at least 1, got {passes}")
        if minibatch_size is not None and minibatch_size < 1:
            raise UserError(f"buffer.minibatch_size: expected at least 1, got {minibatch_size}")
        self.passes, self.minibatch_size = passes, minibatch_size
        self._exp: Experience | None = None

    def steps(self, rows: int) -> int:
        size = self.minibatch_size or rows
        if rows % size:
            raise UserError(f"buffer.minibatch_size: {size} does not divide the {rows} rows of a collection")
        return self.passes * (rows // size)

    def add(self, exp: Experience) -> None:
        self._exp = exp

    def minibatches(self, generator: torch.Generator) -> Iterator[Experience]:
        exp = self._exp
        if exp is None:
            raise RuntimeError("minibatches() before add()")
        size = self.minibatch_size or len(exp)
        for _ in range(self.passes):
            order = shuffled_groups(exp.group, generator)
            for start in range(0, len(exp), size):
                yield exp[order[start : start + size].to(exp.tokens.device)].trim()

    def state_dict(self) -> dict[str, Any]:
        return {} if self._exp is None else {"exp": self._exp.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._exp = Experience.from_state_dict(state["exp"]) if state else None


def shuffled_groups(group: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Row numbers `[B]` with whole groups in random order, rows within a group as they were.

    >>> order = shuffled_groups(torch.tensor([7, 7, 3, 3]), torch.Generator().manual_seed(0))
    >>> sorted(order.tolist()), order.tolist()[0] // 2 == order.tolist()[1] // 2
    ([0, 1, 2, 3], True)
    """
    _, index = torch.unique(group.cpu(), return_inverse=True)  # [B] 0 .. G-1
    places = torch.randperm(int(index.max()) + 1, generator=generator)
    return places[index].argsort(stable=True)
