"""Spelling words backwards."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from feedtune.contracts import Row, Task
from feedtune.errors import UserError


class Reversal(Task):
    """Rows `{"prompt": "a b c > ", "reference": "c b a"}` of all words over some letters, each in one split.

    Args:
        letters: what words are made of, each once.
        length: letters of a word, 1 or more. The number of words is that of the letters to this power.
        eval_rows: words that are held out.
        seed: which words those are, and the order of all.

    Raises:
        UserError: an argument is out of range, or nothing is left to train on.

    >>> Reversal(letters="ab", length=2, eval_rows=1).load("eval")
    [{'prompt': 'b a > ', 'reference': 'a b'}]
    """

    def __init__(
        self, *, letters: str = "abcde", length: int = 3, eval_rows: int = 16, seed: int = 0
    ) -> None:
        if len(set(letters)) != len(letters) or not letters.isalpha():
            raise UserError(f"task.letters: expected letters, each once, got '{letters}'")
        if length < 1:
            raise UserError(f"task.length: expected 1 or more, got {length}")
        count = len(letters) ** length
        if not 0 <= eval_rows < count:
            raise UserError(f"task.eval_rows: expected 0 to {count - 1} of {count} words, got {eval_rows}")
        self.letters, self.length, self.eval_rows, self.seed = letters, length, eval_rows, seed

    def load(self, split: str) -> Sequence[Row]:
        """Rows of "train" or "eval"."""
        if split not in ("train", "eval"):
            raise ValueError(f"expected the split 'train' or 'eval', got {split!r}")
        words = list(itertools.product(self.letters, repeat=self.length))
        random.Random(self.seed).shuffle(words)
        chosen = words[: self.eval_rows] if split == "eval" else words[self.eval_rows :]
        return [{"prompt": f"{' '.join(w)} > ", "reference": " ".join(reversed(w))} for w in chosen]
