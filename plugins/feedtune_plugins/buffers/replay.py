"""Replay: experience of earlier collections is used again and again (off-policy)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from feedtune.contracts import Buffer
from feedtune.errors import UserError
from feedtune.experience import Experience


class Replay(Buffer):
    """The newest rows up to a capacity; minibatches are drawn uniformly with replacement (Lin 1992).

    Args:
        capacity: rows that are kept; the oldest leave first.
        minibatch_size: rows of a minibatch.
        updates: minibatches after each collection.
    """

    on_policy = False

    def __init__(self, *, capacity: int = 10_000, minibatch_size: int = 64, updates: int = 8) -> None:
        for name, value in {
            "capacity": capacity,
            "minibatch_size": minibatch_size,
            "updates": updates,
        }.items():
            if value < 1:
                raise UserError(f"buffer.{name}: expected at least 1, got {value}")
        self.capacity, self.minibatch_size, self.updates = capacity, minibatch_size, updates
        self._store: Experience | None = None  # on the CPU

    def __len__(self) -> int:
        return 0 if self._store is None else len(self._store)

    def steps(self, rows: int) -> int:
        return self.updates

    def add(self, exp: Experience) -> None:
        exp = exp.to("cpu")
        store = exp if self._store is None else Experience.cat([self._store, exp])
        self._store = store[slice(max(0, len(store) - self.capacity), None)].trim()

    def minibatches(self, generator: torch.Generator) -> Iterator[Experience]:
        if self._store is None:
            raise RuntimeError("minibatches() before add()")
        for _ in range(self.updates):
            rows = torch.randint(len(self._store), (self.minibatch_size,), generator=generator)
            yield self._store[rows].trim()

    def state_dict(self) -> dict[str, Any]:
        return {} if self._store is None else {"store": self._store.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._store = Experience.from_state_dict(state["store"]) if state else None
