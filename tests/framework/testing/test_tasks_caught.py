"""Tasks that break one law each: the suite finds it out, and no other law."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from breaking import broken_laws
from feedtune.contracts import Row, Task
from feedtune.testing import TaskSuite
from feedtune.testing.runner import readable

MADE = itertools.count()


class Sound(Task):
    """Questions by number; every fourth is held out."""

    def load(self, split: str) -> Sequence[Row]:
        numbers = range(0, 20, 4) if split == "eval" else [n for n in range(20) if n % 4]
        return [{"prompt": f"What is {n}?", "reference": str(n)} for n in numbers]


class Empty(Sound):
    """Has nothing to train on."""

    def load(self, split: str) -> Sequence[Row]:
        return []


class Odd(Sound):
    """Has a set in a column."""

    def load(self, split: str) -> Sequence[Row]:
        return [{**row, "tags": frozenset("a")} for row in super().load(split)]


class Wordless(Sound):
    """Has a number for a prompt."""

    def load(self, split: str) -> Sequence[Row]:
        return [{**row, "prompt": 7} for row in super().load(split)[:1]] if split == "train" else []


class Leaking(Sound):
    """Trains on what it holds out."""

    def load(self, split: str) -> Sequence[Row]:
        return [*super().load(split), {"prompt": "What is 99?", "reference": "99"}]


class NeverTheSame(Sound):
    """Numbers its rows from wherever it is."""

    def load(self, split: str) -> Sequence[Row]:
        return [{**row, "id": next(MADE)} for row in super().load(split)]


class ShuffledGlobally(Sound):
    """Shuffles by the global seed, once a process."""

    def __init__(self) -> None:
        self.shift = int(torch.randint(2**40, ()))

    def load(self, split: str) -> Sequence[Row]:
        rows = list(super().load(split))
        random.Random(self.shift).shuffle(rows)
        return rows


class Undocumented(Sound):
    __doc__ = None


BROKEN: dict[type[Task], str] = {
    Empty: "there are rows to train on",
    Odd: "rows are plain",
    Wordless: "rows can be read",
    Leaking: "splits share no row",
    NeverTheSame: "loading again gives the same rows",
    ShuffledGlobally: "rows come from no global randomness",
    Undocumented: "its docstring says what it is",
}
MORE = {
    NeverTheSame: {"rows come from no global randomness"},
    ShuffledGlobally: {"loading again gives the same rows"},
}
"""What cannot but break with it."""


def suite_of(kind: type[Task]) -> type[TaskSuite]:
    class Suite(TaskSuite):
        def make(self) -> Any:
            return kind()

    return Suite


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_task_is_found_out(kind: type[Task]) -> None:
    found = broken_laws(suite_of(kind))
    assert {BROKEN[kind]} <= set(found) <= {BROKEN[kind], *MORE.get(kind, ())}, found


def test_a_sound_one_breaks_none() -> None:
    assert broken_laws(suite_of(Sound)) == {}


def test_every_law_is_broken_by_somebody() -> None:
    """The law of parameters has tests of its own, in test_turning.py."""
    laws = {readable(law) for law in TaskSuite.laws()}
    assert laws - set(BROKEN.values()) == {"no parameter is without effect"}


@pytest.mark.parametrize(
    "row",
    [
        {"text": "Once upon a time."},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
        {"chosen": "yes", "rejected": "no", "prompt": "Well?"},
    ],
    ids=lambda row: next(iter(row)),
)
def test_rows_of_every_form_are_read(row: Row) -> None:
    class One(Task):
        """One row of some form."""

        def load(self, split: str) -> Sequence[Row]:
            return [row] if split == "train" else []

    assert broken_laws(suite_of(One)) == {}
