"""Laws that every buffer obeys, as a suite to subclass.

    class TestMine(BufferSuite):
        def make(self) -> Buffer:
            return Mine()

Collections here are random: ragged rows in groups, some without a score, with NaN where nobody reads.
"""

from __future__ import annotations

import copy
import io
import math
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from feedtune.contracts import Buffer
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.testing.rollouts import random_rollout
from feedtune.testing.sameness import alike
from feedtune.testing.suite import Suite, require, seeded, untouched_randomness


def generator(seed: int = 0) -> torch.Generator:
    """Where a buffer's order comes from."""
    return torch.Generator().manual_seed(seed)


class BufferSuite(Suite):
    """The laws of `Buffer`; subclass it in a test module and say how to make one."""

    group: ClassVar[str] = "buffer"

    groups = 4
    """Groups of a collection that laws are tried on; more where a buffer asks for more."""

    group_size = 3

    @abstractmethod
    def make(self) -> Buffer:
        """A fresh buffer, without experience."""

    @classmethod
    def fitted(cls) -> tuple[type[Suite], str]:
        """With as many groups in a collection as the buffer asks for."""
        for groups in (cls.groups, 16, 64, 256):
            kind = type(cls.__name__, (cls,), {"groups": groups})
            try:
                list(kind().filled().minibatches(generator()))
            except UserError:
                continue
            return kind, f"collections of {groups} groups of {cls.group_size} rows"
        return cls, ""

    def collection(self, number: int = 0) -> Experience:
        """A collection whose rows know who they are: `extra["row"]` counts on through collections."""
        count = self.groups * self.group_size
        exp = random_rollout(number, self.groups, self.group_size, unscored={1, count - 1})
        ids = torch.arange(number * count, (number + 1) * count)
        noise = torch.where(exp.mask, torch.rand(exp.mask.shape, generator=generator(number)), math.nan)
        return replace(exp, sampler_logp=noise).with_(row=ids, noise=noise)

    def filled(self, collections: int = 1) -> Buffer:
        """A buffer after so many collections."""
        buffer = self.make()
        for number in range(collections):
            buffer.add(self.collection(number))
        return buffer

    def probe(self, made: Buffer) -> Any:
        """Steps, and every minibatch of three collections."""
        found: list[Any] = [made.on_policy]
        for number in range(3):
            exp = self.collection(number)
            steps = made.steps(len(exp))
            made.add(exp)
            found += [steps, *(mb.tensors() for mb in made.minibatches(generator(number)))]
        return found

    def test_there_are_exactly_as_many_minibatches_as_steps(self) -> None:
        """Lightning reads the number once, before any data is there."""
        buffer = self.make()
        for number in range(3):
            exp = self.collection(number)
            promised = buffer.steps(len(exp))
            require(promised >= 1, f"steps({len(exp)}) is {promised}; there is at least one")
            buffer.add(exp)
            found = len(list(buffer.minibatches(generator())))
            require(found == promised, f"steps({len(exp)}) is {promised}, and {found} minibatches came")
            again = buffer.steps(len(exp))
            require(again == promised, f"steps({len(exp)}) was {promised} and is {again} after a collection")

    def test_rows_come_as_they_went_in(self) -> None:
        """Every tensor of every row, NaN among them; a row without a score stays one."""
        buffer, known = self.make(), dict[int, dict[str, Tensor]]()
        for number in range(2):
            exp = self.collection(number)
            known |= dict(_rows_of(exp))
            buffer.add(exp)
            for mb in buffer.minibatches(generator(number)):
                require(len(mb) > 0, "a minibatch without rows")
                for row, tensors in _rows_of(mb):
                    changed = [
                        name for name, value in known[row].items() if not alike(tensors.get(name), value)
                    ]
                    require(not changed, f"row {row} comes back with other values of {', '.join(changed)}")

    def test_every_row_comes_equally_often(self) -> None:
        """Of an on-policy buffer: each row of the last collection, and none of another."""
        if not self.make().on_policy:
            return self.inapplicable("the buffer is not on-policy: what comes how often is its own")
        buffer = self.filled(2)
        counts = Counter(row for mb in buffer.minibatches(generator()) for row, _ in _rows_of(mb))
        wanted = {row for row, _ in _rows_of(self.collection(1))}
        old = set(counts) - wanted
        require(not old, f"an on-policy buffer gives rows of an earlier collection: {sorted(old)}")
        missed = wanted - set(counts)
        require(not missed, f"rows {sorted(missed)} of the collection never come")
        often = set(counts.values())
        require(len(often) == 1, f"some rows come {min(often)} times and others {max(often)} times")
        return None

    def test_groups_are_never_split(self) -> None:
        """A minibatch has all rows of a group or none: their scores are compared."""
        if not self.make().on_policy:
            return self.inapplicable("the buffer is not on-policy: algorithms that it serves compare no rows")
        for mb in self.filled().minibatches(generator()):
            for number, count in Counter(mb.group.tolist()).items():
                require(
                    count % self.group_size == 0,
                    f"a minibatch has {count} of the {self.group_size} rows of group {number}",
                )
        return None

    def test_the_order_comes_from_the_generator_alone(self) -> None:
        with seeded(0), untouched_randomness():
            first = self.probe(self.make())
        with seeded(1):
            again = self.probe(self.make())
        require(alike(first, again), "with the same generator the minibatches differ")

    def test_what_is_taken_out_does_not_change_what_is_in(self) -> None:
        """The same generator gives the same minibatches again, though somebody wrote into the first."""
        buffer = self.filled(2)
        wanted = copy.deepcopy(self.minibatches(buffer))
        for mb in buffer.minibatches(generator()):
            for value in mb.tensors().values():
                value.zero_()
        require(
            alike(self.minibatches(buffer), wanted),
            "what is written into a minibatch stays in the buffer",
        )

    def test_its_state_gives_the_same_minibatches(self) -> None:
        """Taken at any position, written to a file and read into a fresh buffer: the rest comes alike."""
        for collections in (1, 3):
            for position in range(self.filled(collections).steps(len(self.collection())) + 1):
                buffer = self.filled(collections)
                stream = buffer.minibatches(generator(7))
                for _ in range(position):
                    next(stream)
                other = self.make()
                other.load_state_dict(stored(buffer.state_dict()))
                where = f"after {collections} collections and {position} minibatches"
                rest = [mb.tensors() for mb in stream]
                found = [mb.tensors() for mb in other.minibatches(generator(7))][position:]
                require(alike(found, rest), f"restored {where}, the rest differs")
                for each in (buffer, other):
                    each.add(self.collection(collections))
                same = alike(self.minibatches(other), self.minibatches(buffer))
                require(same, f"restored {where}, the next collection differs")

    def test_the_state_of_an_empty_buffer_is_a_state(self) -> None:
        buffer, other = self.make(), self.make()
        other.load_state_dict(stored(buffer.state_dict()))
        for each in (buffer, other):
            each.add(self.collection())
        same = alike(self.minibatches(other), self.minibatches(buffer))
        require(same, "restored while it was empty, it gives other minibatches")

    def test_a_state_is_a_copy(self) -> None:
        """What comes after does not change a state that was taken."""
        buffer = self.filled()
        state = buffer.state_dict()
        before = copy.deepcopy(state)
        list(buffer.minibatches(generator()))
        buffer.add(self.collection(1))
        require(alike(state, before), "a state that was taken changes with the buffer")

    def test_without_experience_it_says_so(self) -> None:
        """Nothing to give is an error, never silence: training would end without a step."""
        try:
            list(self.make().minibatches(generator()))
        except Exception:
            return
        raise AssertionError("minibatches() before add() gives nothing and says nothing")

    def minibatches(self, buffer: Buffer) -> list[dict[str, Tensor]]:
        """All minibatches by one generator, as tensors."""
        return [mb.tensors() for mb in buffer.minibatches(generator(3))]


def stored(state: dict[str, Any]) -> dict[str, Any]:
    """A state as a checkpoint gives it back: plain tensors and numbers, or this fails.

    >>> stored({"a": torch.tensor([1]), "b": [2, None]})
    {'a': tensor([1]), 'b': [2, None]}
    """
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        found: dict[str, Any] = torch.load(file, weights_only=True)
    except Exception as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f", such as {named[1]}" if named else ""
        raise AssertionError(f"state_dict() holds more than plain tensors and numbers{what}") from error
    return found


def _rows_of(exp: Experience) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Each row of a collection by its number, without pads."""
    for place, number in enumerate(exp.extra["row"].tolist()):
        yield number, exp[place : place + 1].trim().tensors()
