"""Human conversations: the package `chitchat-dataset`, 7,168 chats of which 4,017 have two speakers."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib import resources
from itertools import cycle, groupby
from operator import itemgetter
from typing import Any

from feedtune.contracts import Row, Task
from feedtune.errors import UserError, missing_extra

Talk = list[str]  # what was said, two speakers taking turns

RESERVED = 1.5
"""Conversations that train never sees, for each row that is held out: some have no row that fits."""

_ROLES = ("user", "assistant")


class Chitchat(Task):
    """Chat rows `{"messages": [...]}` that begin with a user's message and end with an assistant's.

    What one person says in a row is one message. Whoever speaks first is the user.

    The eval split has one row from each of `eval_rows` conversations, of which no other row is used. Its
    prompts are distinct and none of them is also a prompt of the train split. Which conversations train never
    sees depends on `seed` and `eval_rows` alone, unless more than a third of them has no row that fits: the
    stages of a pipeline, each with rows of another length, hold out the same.

    Args:
        turns: messages a row: every stretch of so many becomes one, so each message is answered once. An
            even number. None: whole conversations.
        max_words: no message of a row is longer than this; a conversation falls apart at those that are.
            None: no limit.
        min_messages: conversations, or what is left of them, that are shorter are dropped. From 2.
        eval_rows: rows of the eval split.
        limit: most rows of the train split, drawn at random; None: all.
        lowercase: everything in lower case.
        seed: which conversations are held out.

    Raises:
        UserError: an argument is out of range, or the package is not installed.
    """

    def __init__(
        self,
        *,
        turns: int | None = None,
        max_words: int | None = None,
        min_messages: int = 2,
        eval_rows: int = 256,
        limit: int | None = None,
        lowercase: bool = False,
        seed: int = 0,
    ) -> None:
        if turns is not None and (turns < 2 or turns % 2):
            raise UserError(
                f"task.turns: expected an even number from 2, or null for whole conversations, got {turns}"
            )
        for key, value, least in (
            ("max_words", max_words, 1),
            ("min_messages", min_messages, 2),
            ("eval_rows", eval_rows, 0),
            ("limit", limit, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"task.{key}: expected a number from {least}, got {value}")
        self.turns, self.max_words, self.min_messages = turns, max_words, min_messages
        self.eval_rows, self.limit, self.lowercase, self.seed = eval_rows, limit, lowercase, seed

    def load(self, split: str) -> Sequence[Row]:
        """Rows of "train" or "eval"; the package's file is read once."""
        if split not in ("train", "eval"):
            raise ValueError(f"expected the split 'train' or 'eval', got {split!r}")
        train, held_out = self._splits
        return train if split == "train" else held_out

    @cached_property
    def _splits(self) -> tuple[list[Row], list[Row]]:
        talks, generator = list(conversations()), random.Random(self.seed)
        generator.shuffle(talks)  # before any is left out, so that other options hold out the same
        chats = [self._windows(talk) for talk in talks]
        holders = Counter(prompt for chat in chats for prompt in {tuple(window[:-1]) for window in chat})
        train, held_out = list[Talk](), list[Talk]()
        for place, chat in enumerate(chats):
            own = [window for window in chat if holders[tuple(window[:-1])] == 1]
            if own and len(held_out) < self.eval_rows:
                held_out.append(generator.choice(own))
            elif place >= self.eval_rows * RESERVED:
                train += chat
        if len(held_out) < self.eval_rows or not train:
            raise UserError(
                f"task.eval_rows: {self.eval_rows} rows want {RESERVED} times as many conversations, kept "
                f"from training; with task.turns={self.turns}, max_words={self.max_words}, min_messages="
                f"{self.min_messages} there are {sum(map(bool, chats))}"
            )
        if self.limit is not None:
            train = generator.sample(train, min(self.limit, len(train)))
        return [_row(talk) for talk in train], [_row(talk) for talk in held_out]

    def _windows(self, talk: Talk) -> list[Talk]:
        """The rows of one conversation: each begins with a user's message and ends with an assistant's."""
        if self.lowercase:
            talk = [text.lower() for text in talk]
        parts = [part for part in _short_parts(talk, self.max_words) if len(part) >= self.min_messages]
        if self.turns is None:
            return [part[: len(part) // 2 * 2] for part in parts]
        starts = [(part, at) for part in parts for at in range(len(part) - self.turns + 1)]
        return [part[at : at + self.turns] for part, at in starts]


def conversations(needed_by: str = "task=chitchat") -> list[Talk]:
    """What was said in every chat of the package that has two speakers, in the package's order."""
    try:
        file = resources.files("chitchat_dataset") / "dataset.json"
    except ModuleNotFoundError as error:
        raise missing_extra("chitchat-dataset", "chitchat", needed_by) from error
    chats: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    talks = (_talk(said for block in chat["messages"] for said in block) for chat in chats.values())
    return [talk for talk in talks if len(talk) > 1]


def _talk(utterances: Iterable[dict[str, str]]) -> Talk:
    """One message for all that a speaker says in a row; what is blank was not said."""
    said = ((utterance["sender"], utterance["text"].strip()) for utterance in utterances)
    turns = groupby((pair for pair in said if pair[1]), key=itemgetter(0))
    return [" ".join(text for _, text in turn) for _, turn in turns]


def _short_parts(talk: Talk, max_words: int | None) -> list[Talk]:
    """A conversation without its overlong messages: what lies between them."""
    if max_words is None:
        return [talk]
    runs = groupby(talk, key=lambda text: len(text.split()) <= max_words)
    return [list(run) for short, run in runs if short]


def _row(talk: Talk) -> Row:
    return {"messages": [{"role": role, "content": text} for role, text in zip(cycle(_ROLES), talk)]}
