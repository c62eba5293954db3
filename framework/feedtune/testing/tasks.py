"""Laws that every task obeys, as a suite to subclass.

    class TestMine(TaskSuite):
        def make(self) -> Task:
            return Mine(rows=20)

Make a small one: rows are loaded many times.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from feedtune.contracts import Row, Task
from feedtune.errors import UserError
from feedtune.testing.sameness import alike
from feedtune.testing.suite import Suite, require, seeded, untouched_randomness
from feedtune.testing.tiny import tiny_codec
from feedtune.text.codec import Codec
from feedtune.text.conversation import form_of

MOST = 200
"""Rows of a split that are read closely; of more, so many are taken evenly."""


class TaskSuite(Suite):
    """The laws of `Task`; subclass it in a test module and say how to make one."""

    group: ClassVar[str] = "task"

    @abstractmethod
    def make(self) -> Task:
        """A fresh task."""

    def probe(self, made: Task) -> Any:
        """The rows of both splits."""
        return [list(made.load(split)) for split in ("train", "eval")]

    def test_there_are_rows_to_train_on(self) -> None:
        for split in ("train", "eval"):
            rows = self.make().load(split)
            require(
                isinstance(rows, Sequence), f"load('{split}') gives no sequence, but {type(rows).__name__}"
            )
            wrong = next((n for n, row in enumerate(rows, 1) if not isinstance(row, Mapping)), None)
            require(wrong is None, f"row {wrong} of '{split}' is no mapping of columns")
        require(len(self.make().load("train")) > 0, "load('train') gives no rows")

    def test_rows_are_plain(self) -> None:
        """JSON can write each row: rewards elsewhere, samples.jsonl and people read them."""
        for name, row in self.some_rows():
            try:
                json.dumps(row)
            except (TypeError, ValueError) as error:
                raise AssertionError(f"{name} is not plain, JSON cannot write it: {error}") from error
            keys = [key for key in row if not isinstance(key, str)]
            require(not keys, f"{name}: names of columns are text, found {keys}")

    def test_rows_can_be_read(self) -> None:
        """Each row has `prompt`, `messages`, `text` or a pair `chosen` and `rejected`, of text."""
        codec = tiny_codec()
        for name, row in self.some_rows():
            try:
                count = _tokens_of(codec, row)
            except UserError as error:
                raise AssertionError(f"{name} cannot be read: {error}") from error
            require(count > 0, f"{name} gives no token to read")

    def test_splits_share_no_row(self) -> None:
        task = self.make()
        train = {_written(row): n for n, row in enumerate(task.load("train"), 1)}
        for number, row in enumerate(task.load("eval"), 1):
            twin = train.get(_written(row))
            require(twin is None, f"row {number} of 'eval' is also row {twin} of 'train'")

    def test_loading_again_gives_the_same_rows(self) -> None:
        task = self.make()
        for split in ("eval", "train", "eval"):  # whichever was loaded first
            rows = list(task.load(split))
            require(alike(list(task.load(split)), rows), f"load('{split}') gives other rows the second time")
            fresh = list(self.make().load(split))
            require(alike(fresh, rows), f"another task of the same arguments has other '{split}' rows")

    def test_rows_come_from_no_global_randomness(self) -> None:
        """Another global seed gives the same rows, and loading leaves the global generators as they were."""
        with seeded(0), untouched_randomness():
            first = self.probe(self.make())
        with seeded(1):
            again = self.probe(self.make())
        require(alike(first, again), "another global seed gives other rows; give the task a seed of its own")

    def some_rows(self) -> list[tuple[str, Row]]:
        """Rows of both splits with what messages call them, at most `MOST` of each."""
        task, found = self.make(), list[tuple[str, Row]]()
        for split in ("train", "eval"):
            rows = task.load(split)
            places = range(0, len(rows), max(1, len(rows) // MOST))
            found += [(f"row {place + 1} of '{split}'", rows[place]) for place in places]
        return found


def _written(row: Row) -> str:
    return json.dumps(row, sort_keys=True, default=repr)


def _tokens_of(codec: Codec, row: Row) -> int:
    """How many tokens a row gives to whoever reads it."""
    if row.get("chosen") is not None and row.get("rejected") is not None:
        return min(len(one.tokens) for one in codec.pairs([row])[0])
    text = form_of(row, "it") == "text"
    return len((codec.sequence(row) if text else codec.prompt(row)).tokens)
