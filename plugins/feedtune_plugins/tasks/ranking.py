"""Ranking: a small search, whose queries are real messages and whose documents are known by their titles."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from functools import cached_property

from feedtune.checks import check_not_negative
from feedtune.contracts import Row, Task
from feedtune.errors import UserError
from feedtune_plugins.tasks.chitchat import conversations

WORD = re.compile(r"[a-z']+")
HIGHEST = 2  # grade
TINY = 1e-300  # has a logarithm


class Ranking(Task):
    """Chat rows `{"messages": [query], "reference": "music food ...", "relevance": {"music": 2, "food": 0}}`.

    Queries are messages of `task=chitchat` in lower case, each once, in which at least one document's words
    occur. A document's grade says how many of its words do: 0, 1, or 2 for two or more. That is known here so
    that rankings can be measured; no person has judged it.

    The `reference` of training rows is what an old ranker would show: a draw from the model of Plackett and
    Luce, in which a document's strength is `knowledge` x its grade less `favour` x the documents that are
    listed before it. Learning to say it (algorithm=sft) gives a policy to log clicks with.

    Args:
        documents: titles, each one word, with the words that queries about it have.
        rows: most training rows.
        eval_rows: held-out rows.
        max_words: longest query in words.
        knowledge: how well the old ranker knows what is asked for; 0: not at all.
        favour: how strongly it prefers what is listed first; 0: not at all.
        seed: which queries are drawn and held out, and what the old ranker shows.

    Raises:
        UserError: an argument is out of range, there are too few queries, or the package of the
            conversations is not installed.
    """

    def __init__(
        self,
        *,
        documents: Mapping[str, Sequence[str]],
        rows: int = 13000,
        eval_rows: int = 512,
        max_words: int = 24,
        knowledge: float = 1.0,
        favour: float = 0.7,
        seed: int = 0,
    ) -> None:
        for key, value in (("rows", rows), ("eval_rows", eval_rows), ("max_words", max_words)):
            if value < 1:
                raise UserError(f"task.{key}: expected a number from 1, got {value}")
        check_not_negative("task.knowledge", knowledge)
        check_not_negative("task.favour", favour)
        self.words = {title: frozenset(words) for title, words in documents.items()}
        _check_documents(self.words)
        self.rows, self.eval_rows, self.max_words = rows, eval_rows, max_words
        self.knowledge, self.favour, self.seed = knowledge, favour, seed

    def load(self, split: str) -> Sequence[Row]:
        """Rows of "train" or "eval"; the conversations are read once."""
        if split not in ("train", "eval"):
            raise ValueError(f"expected the split 'train' or 'eval', got {split!r}")
        train, held_out = self._splits
        return train if split == "train" else held_out

    @cached_property
    def _splits(self) -> tuple[list[Row], list[Row]]:
        talks = conversations("task=ranking")
        said = dict.fromkeys(" ".join(text.lower().split()) for talk in talks for text in talk)
        short = [text for text in said if len(text.split()) <= self.max_words]
        queries = [(text, grades) for text in short if any((grades := self.relevance(text)).values())]
        if len(queries) <= self.eval_rows:
            raise UserError(
                f"task.eval_rows: {self.eval_rows} rows and some to train on want more queries than the "
                f"{len(queries)} of at most {self.max_words} words in which task.documents occur"
            )
        generator = random.Random(self.seed)
        generator.shuffle(queries)
        held_out, train = queries[: self.eval_rows], queries[self.eval_rows :][: self.rows]
        shown = [{"reference": self._old_order(grades, generator)} for _, grades in train]
        return (
            [_row(*query) | order for query, order in zip(train, shown, strict=True)],
            [_row(*query) for query in held_out],
        )

    def relevance(self, query: str) -> dict[str, int]:
        """Each document's grade for a query."""
        words = set(WORD.findall(query.lower()))
        return {title: min(HIGHEST, len(words & known)) for title, known in self.words.items()}

    def _old_order(self, grades: Mapping[str, int], generator: random.Random) -> str:
        """Sorting by strength plus Gumbel noise draws from the model of Plackett and Luce (Yellott 1977)."""
        strength = {
            title: self.knowledge * grade - self.favour * place + _gumbel(generator)
            for place, (title, grade) in enumerate(grades.items())
        }
        return " ".join(sorted(strength, key=strength.__getitem__, reverse=True))


def _gumbel(generator: random.Random) -> float:
    return -math.log(-math.log(max(generator.random(), TINY)))


def _row(query: str, grades: Mapping[str, int]) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": query}], "relevance": dict(grades)}


def _check_documents(documents: Mapping[str, frozenset[str]]) -> None:
    if len(documents) < 2:
        raise UserError(f"task.documents: expected two or more to rank, got {len(documents)}")
    for title, words in documents.items():
        if title.split() != [title]:
            raise UserError(f"task.documents: a title is one word, since rankings are words; got '{title}'")
        odd = [word for word in sorted(words) if not WORD.fullmatch(word)]
        if odd or not words:
            got = f"'{odd[0]}'" if odd else "none"
            raise UserError(f"task.documents.{title}: expected words in lower case, a to z and ', got {got}")
