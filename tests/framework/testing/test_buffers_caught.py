"""Buffers that break one law each: the suite finds it out, and no other law."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch

from breaking import broken_laws
from feedtune.contracts import Buffer
from feedtune.experience import Experience
from feedtune.testing import BufferSuite
from feedtune.testing.runner import readable
from feedtune_plugins.buffers import Epochs, Replay


class Sound(Epochs):
    """Two passes of two minibatches."""

    def __init__(self) -> None:
        super().__init__(passes=2, minibatches=2)


class PromisesMore(Sound):
    """Says one step more than there is."""

    def steps(self, rows: int) -> int:
        return super().steps(rows) + 1


class LosesRewards(Sound):
    """Gives rows back without what they earned."""

    def minibatches(self, generator: torch.Generator) -> Iterator[Experience]:
        for exp in super().minibatches(generator):
            yield replace(exp, reward=torch.zeros_like(exp.reward))


class SkipsARow(Sound):
    """Leaves out a group of the first minibatch."""

    def minibatches(self, generator: torch.Generator) -> Iterator[Experience]:
        for number, exp in enumerate(super().minibatches(generator)):
            yield exp[(exp.group != exp.group.min()).nonzero().squeeze(-1)] if number == 0 else exp


class SplitsGroups(Sound):
    """Shuffles rows, not groups."""

    def add(self, exp: Experience) -> None:
        super().add(exp)
        self.rows = torch.arange(len(exp))

    def minibatches(self, generator: torch.Generator) -> Iterator[Experience]:
        assert self._exp is not None
        for _ in range(2):
            for part in torch.randperm(len(self._exp), generator=generator).tensor_split(2):
                yield self._exp[part]


class DrawsGlobally(Sound):
    """Takes its order from the global generator."""

    def minibatches(self, generator: torch.Generator) -> Iterator[Experience]:
        own = torch.Generator().manual_seed(int(torch.randint(1000, ())))
        yield from super().minibatches(own)


class HandsOutItself(Sound):
    """One minibatch, which is what it holds and no copy."""

    def __init__(self) -> None:
        Epochs.__init__(self)

    def minibatches(self, generator: torch.Generator) -> Iterator[Experience]:
        assert self._exp is not None
        yield self._exp


class ForgetsItsRows(Sound):
    """Writes down none of its rows, and begins anew with those of an empty collection."""

    def state_dict(self) -> dict[str, Any]:
        return {} if self._exp is None else {"exp": self._exp[:3].state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.per_pass = 1 if state else 2


class CannotBeEmpty(Sound):
    """Takes for granted that a state has rows."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._exp = Experience.from_state_dict(state["exp"])


class StatesItself(Replay):
    """Its state is its own memory, in which it goes on counting."""

    def __init__(self) -> None:
        super().__init__(capacity=50, minibatch_size=4, updates=2)
        self.kept: dict[str, Any] = {}

    def add(self, exp: Experience) -> None:
        super().add(exp)
        self.kept.update(super().state_dict())

    def state_dict(self) -> dict[str, Any]:
        return self.kept


class Silent(Sound):
    """Gives nothing where there is nothing, and says nothing."""

    def minibatches(self, generator: torch.Generator) -> Iterator[Experience]:
        if self._exp is not None:
            yield from super().minibatches(generator)


class Undocumented(Sound):
    __doc__ = None


BROKEN = {
    PromisesMore: "there are exactly as many minibatches as steps",
    LosesRewards: "rows come as they went in",
    SkipsARow: "every row comes equally often",
    SplitsGroups: "groups are never split",
    DrawsGlobally: "the order comes from the generator alone",
    HandsOutItself: "what is taken out does not change what is in",
    ForgetsItsRows: "its state gives the same minibatches",
    CannotBeEmpty: "the state of an empty buffer is a state",
    StatesItself: "a state is a copy",
    Silent: "without experience it says so",
    Undocumented: "its docstring says what it is",
}
MORE = {
    DrawsGlobally: {
        "its state gives the same minibatches",
        "the state of an empty buffer is a state",
        "what is taken out does not change what is in",
    },
    PromisesMore: {"its state gives the same minibatches"},
}
"""What cannot but break with it."""


def suite_of(kind: type[Buffer]) -> type[BufferSuite]:
    class Suite(BufferSuite):
        def make(self) -> Buffer:
            return kind()

    return Suite


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_buffer_is_found_out(kind: type[Buffer]) -> None:
    found = broken_laws(suite_of(kind))
    assert {BROKEN[kind]} <= set(found) <= {BROKEN[kind], *MORE.get(kind, ())}, found


def test_a_sound_one_breaks_none() -> None:
    assert broken_laws(suite_of(Sound)) == {}


def test_every_law_is_broken_by_somebody() -> None:
    """The law of parameters has tests of its own, in test_turning.py."""
    laws = {readable(law) for law in BufferSuite.laws()}
    assert laws - set(BROKEN.values()) == {"no parameter is without effect"}


def test_a_state_of_more_than_plain_things_is_refused() -> None:
    class Clever(Sound):
        """Writes down a fraction beside its rows."""

        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "share": Fraction(1, 3)}

    found = broken_laws(suite_of(Clever))
    laws = {"its state gives the same minibatches", "the state of an empty buffer is a state"}
    assert laws <= set(found)
    for law in laws:
        assert (
            found[law] == "state_dict() holds more than plain tensors and numbers, such as fractions.Fraction"
        )
