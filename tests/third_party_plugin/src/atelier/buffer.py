"""The newest collections."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from feedtune.contracts import Buffer
from feedtune.errors import UserError
from feedtune.experience import Experience


class Recent(Buffer):
    """Keeps the newest collections; a minibatch is one of them, whole: rows that are compared stay together.

    The first minibatch after each collection is the new one; the others are drawn with replacement.

    Args:
        collections: that are kept, 1 or more; the oldest leaves first.
        minibatches: after each collection, 1 or more; one optimiser step each.

    Raises:
        UserError: an argument is below 1.
    """

    on_policy = False  # what older policies said comes again

    def __init__(self, *, collections: int = 4, minibatches: int = 2) -> None:
        for key, value in {"collections": collections, "minibatches": minibatches}.items():
            if value < 1:
                raise UserError(f"buffer.{key}: expected 1 or more, got {value}")
        self.count = minibatches
        self.kept: deque[Experience] = deque(maxlen=collections)

    def steps(self, rows: int) -> int:
        """Minibatches after each collection."""
        return self.count

    def add(self, exp: Experience) -> None:
        """Take in a collection, and forget the oldest where there are too many."""
        self.kept.append(exp.to("cpu"))

    def minibatches(self, generator: torch.Generator) -> Iterator[Experience]:
        """The newest collection, and some of those that are kept, as the generator draws them."""
        if not self.kept:
            raise RuntimeError("minibatches() before add()")
        drawn = torch.randint(len(self.kept), (self.count - 1,), generator=generator)
        for place in [len(self.kept) - 1, *drawn.tolist()]:
            yield self.kept[place][torch.arange(len(self.kept[place]))]  # a copy

    def state_dict(self) -> dict[str, Any]:
        """The collections, oldest first."""
        return {"kept": [exp.state_dict() for exp in self.kept]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.kept.clear()
        self.kept.extend(Experience.from_state_dict(one) for one in state["kept"])
