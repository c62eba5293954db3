"""Arithmetic: questions whose answers can be checked, made on the spot and never the same twice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property

from feedtune.contracts import Row, Task
from feedtune.errors import UserError

OPERATIONS = ("+", "-", "*")
MOST_QUESTIONS = 2**62  # numbered by machine integers

Question = tuple[tuple[int, ...], tuple[str, ...]]  # n numbers and the n - 1 operations between them


class Arithmetic(Task):
    """Chat rows `{"messages": [a user's question], "reference": "22"}` for `reward=answer`.

    No question occurs twice. A question and its rearrangements (17 + 5 and 5 + 17) are in the same split:
    what is held out cannot be answered by remembering a training row.

    Args:
        operations: of "+", "-" and "*", drawn anew for each place. Results below 0 are asked for as well.
        largest: numbers are drawn from 1 to this one.
        terms: numbers in a question, at least 2. "*" binds closer than "+" and "-".
        rows: most rows of the train split; small numbers give fewer different questions.
        eval_rows: rows of the eval split.
        question: how to ask; `{expression}` stands for 17 + 5.
        seed: which questions are drawn and held out.

    Raises:
        UserError: an argument is out of range, or there are not enough different questions.

    >>> Arithmetic(largest=2, eval_rows=1, question="{expression}?").load("eval")
    [{'messages': [{'role': 'user', 'content': '2 + 2?'}], 'reference': '4'}]
    """

    def __init__(
        self,
        *,
        operations: Sequence[str] = ("+",),
        largest: int = 20,
        terms: int = 2,
        rows: int = 1000,
        eval_rows: int = 64,
        question: str = "What is {expression}? Answer with the number only.",
        seed: int = 0,
    ) -> None:
        least = {"largest": (largest, 1), "terms": (terms, 2), "rows": (rows, 1), "eval_rows": (eval_rows, 0)}
        for key, (value, smallest) in least.items():
            if value < smallest:
                raise UserError(f"task.{key}: expected a number from {smallest}, got {value}")
        self.operations = tuple(dict.fromkeys(operations))
        if not self.operations or not set(self.operations) <= set(OPERATIONS):
            raise UserError(f"task.operations: expected some of {list(OPERATIONS)}, got {list(operations)}")
        if "{expression}" not in question:
            raise UserError(f"task.question: expected a text with {{expression}} in it, got '{question}'")
        self.largest, self.terms, self.question = largest, terms, question
        self.rows, self.eval_rows, self.seed = rows, eval_rows, seed
        self.different = largest**terms * len(self.operations) ** (terms - 1)
        if self.different > MOST_QUESTIONS:
            raise UserError(
                f"task.terms: {terms} numbers up to {largest} give more questions than can be numbered; "
                "lower task.terms or task.largest"
            )

    def load(self, split: str) -> Sequence[Row]:
        if split not in ("train", "eval"):
            raise ValueError(f"expected the split 'train' or 'eval', got {split!r}")
        train, held_out = self._splits
        return train if split == "train" else held_out

    @cached_property
    def _splits(self) -> tuple[list[Row], list[Row]]:
        # Rearrangements drop out of train, so more are drawn than are kept.
        drawn = min(self.different, 4 * (self.rows + self.eval_rows))
        numbers = random.Random(self.seed).sample(range(self.different), drawn)
        questions = [self._numbered(number) for number in numbers]
        held_out = {_rearranged(question): question for question in reversed(questions)}  # the first of each
        firsts = [question for question in questions if held_out[_rearranged(question)] == question]
        kept_out = {_rearranged(question) for question in firsts[: self.eval_rows]}
        train = [question for question in questions if _rearranged(question) not in kept_out]
        if len(kept_out) < self.eval_rows or not train:
            raise UserError(
                f"task.eval_rows: {self.eval_rows} rows and some to train on want more questions than the "
                f"{len(firsts)} that differ; raise task.largest or task.terms"
            )
        return [self._row(q) for q in train[: self.rows]], [self._row(q) for q in firsts[: self.eval_rows]]

    def _numbered(self, number: int) -> Question:
        """Question 0, 1, ...: the digits of its number say what it is made of."""
        numbers, operations = [], []
        for _ in range(self.terms):
            number, digit = divmod(number, self.largest)
            numbers.append(1 + digit)
        for _ in range(self.terms - 1):
            number, digit = divmod(number, len(self.operations))
            operations.append(self.operations[digit])
        return tuple(numbers), tuple(operations)

    def _row(self, question: Question) -> Row:
        asked = self.question.replace("{expression}", expression(question))
        return {"messages": [{"role": "user", "content": asked}], "reference": str(result(question))}


def expression(question: Question) -> str:
    """A question as people write it.

    >>> expression(((17, 5, 2), ("+", "*")))
    '17 + 5 * 2'
    """
    numbers, operations = question
    rest = zip(operations, numbers[1:], strict=True)
    return str(numbers[0]) + "".join(f" {operation} {number}" for operation, number in rest)


def result(question: Question) -> int:
    """What it comes to.

    >>> result(((17, 5, 2), ("-", "*")))
    7
    """
    numbers, operations = question
    summands = [numbers[0]]
    for operation, number in zip(operations, numbers[1:], strict=True):
        if operation == "*":
            summands[-1] *= number
        else:
            summands.append(number if operation == "+" else -number)
    return sum(summands)


def _rearranged(question: Question) -> Question:
    """The same for all questions with the same numbers and operations in any order."""
    numbers, operations = question
    return tuple(sorted(numbers)), tuple(sorted(operations))
