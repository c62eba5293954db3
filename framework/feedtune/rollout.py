"""The train loader: collect -> prepare -> buffer -> minibatches; sized, stateful, re-iterable.

One Lightning epoch is one trip through it. Its state travels in the module's checkpoint hooks, and it
promises that a run that was killed and resumed sees the same minibatches as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from feedtune.contracts import Buffer, Collector, Plan
from feedtune.experience import Experience
from feedtune.randomness import generator_for

ORDER, COLLECT, SHUFFLE = range(3)  # what a generator is for


class RolloutLoader:
    """Minibatches of experience for Lightning's automatic optimisation.

    Args:
        items: what the collector loaded.
        collector, buffer: the plugins.
        collect: `(items, generator) -> Experience`, prepared for the loss; runs the collector under the
            Trainer's precision with the policy in evaluation mode.
        seed, rank, ranks: make every draw depend on where it is made and on nothing else.
        accumulate: micro-batches an optimiser step; their common denominators are attached to each.
        sum_over_ranks: adds a tensor over all ranks.
    """

    def __init__(
        self,
        items: Sequence[Any],
        collector: Collector,
        buffer: Buffer,
        collect: Callable[[Sequence[Any], torch.Generator], Experience],
        *,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        accumulate: int = 1,
        sum_over_ranks: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> None:
        self.items, self.collector, self.buffer, self.collect = items, collector, buffer, collect
        self.seed, self.rank, self.ranks, self.accumulate = seed, rank, ranks, accumulate
        self.sum_over_ranks = sum_over_ranks
        self.plan: Plan = collector.plan(len(items), ranks)
        self.steps = buffer.steps(self.plan.rows)  # minibatches of each collection
        self.collected = 0  # collections begun since the start of training
        self.yielded = 0  # minibatches handed out in this epoch
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return self.plan.collections * self.steps

    @property
    def steps_of_a_collection(self) -> int:
        """The most optimiser steps that one collection has minibatches in."""
        starts = range(0, len(self), self.steps)
        return max(math.ceil((start % self.accumulate + self.steps) / self.accumulate) for start in starts)

    def __iter__(self) -> Iterator[Experience]:
        # Lightning never pulls past the last minibatch, so nothing after the last yield would run:
        # a finished epoch is closed here, at the top of the next.
        if self.yielded >= len(self):
            self.yielded = 0
        stream = self._minibatches()
        while self.yielded < len(self):
            window = list(islice(stream, min(self.accumulate, len(self) - self.yielded)))
            for exp in self._with_step_counts(window):
                self.yielded += 1
                yield exp

    def _minibatches(self) -> Iterator[Experience]:
        """The minibatches of this epoch that have not been handed out yet."""
        collection, skip = divmod(self.yielded, self.steps)
        for _ in range(collection, self.plan.collections):
            if skip == 0:
                self._collect()
            generator = generator_for(self.seed, self.collected, self.rank, SHUFFLE)
            yield from islice(self.buffer.minibatches(generator), skip, self.steps)
            skip = 0

    def _collect(self) -> None:
        generator = generator_for(self.seed, self.collected + 1, self.rank, COLLECT)
        exp = self.collect(self._draw(self.collected), generator)
        if len(exp) != self.plan.rows:
            raise RuntimeError(f"the collector planned {self.plan.rows} rows and returned {len(exp)}")
        self.buffer.add(exp)
        self.collected += 1

    def _draw(self, collection: int) -> list[Any]:
        """This rank's items of a collection, from an endless stream of shuffled passes over all items."""
        first = collection * self.plan.items * self.ranks + self.rank
        places = range(first, first + self.plan.items * self.ranks, self.ranks)
        return [self.items[self._item_at(place)] for place in places]

    def _item_at(self, place: int) -> int:
        turn, offset = divmod(place, len(self.items))
        if self._order[0] != turn:
            self._order = (
                turn,
                torch.randperm(len(self.items), generator=generator_for(self.seed, turn, ORDER)),
            )
        return int(self._order[1][offset])

    def _with_step_counts(self, window: list[Experience]) -> list[Experience]:
        """Attach the denominators of the whole optimiser step: a minibatch cannot know them."""
        tokens = sum(float(exp.action.sum()) for exp in window)
        rows = sum(float(exp.action.any(-1).sum()) for exp in window)
        totals = self.sum_over_ranks(torch.tensor([tokens, rows], dtype=torch.float64))
        return [replace(e, step_tokens=float(totals[0]), step_rows=float(totals[1])) for e in window]

    def state_dict(self) -> dict[str, Any]:
        """Where this rank stands. Take it between optimiser steps."""
        return {"collected": self.collected, "yielded": self.yielded, "buffer": self.buffer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.collected, self.yielded = state["collected"], state["yielded"]
        self.buffer.load_state_dict(state["buffer"])
