"""Whether a response says certain words."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune_plugins.rewards.checks import one_of
from feedtune_plugins.rewards.references import column_texts
from feedtune_plugins.rewards.text import is_word_character

MODES = ("share", "any", "count")


@dataclass(kw_only=True)
class Keywords:
    """How many of the listed words a response says. Each is worth the same however often it is repeated.

    A word may hold spaces ("thank you") and signs ("C++"). Spelling variants of one character (é as one sign
    or as two) are equal. An empty response scores 0.

    Args:
        words: the words. Not read where `column` is given.
        column: a column with the row's own words: a text is one word, a list several; without any, NaN.
        mode: `share` of the words that occur, in [0, 1]; 1 if `any` occurs; `count` of those that occur.
        whole_words: "cat" is not in "concatenate". Set to false for scripts without spaces between words.
        case_sensitive: tell "May" from "may".
        scale: times what; a negative one penalises the words.

    Raises:
        UserError: there are no words, one is blank, or a row lacks the column.

    >>> Keywords(words=["thanks", "please"])([Sample("Tea?", "THANKS!"), Sample("Tea?", "I am pleased.")])
    tensor([0.5000, 0.0000])
    """

    words: Sequence[str] = ()
    column: str | None = None
    mode: Literal["share", "any", "count"] = "share"
    whole_words: bool = True
    case_sensitive: bool = False
    scale: float = 1.0

    def __post_init__(self) -> None:
        one_of("reward.mode", self.mode, MODES)
        if isinstance(self.words, str):
            raise UserError(
                f"reward.words: expected a list, such as [{self.words}], got the text '{self.words}'"
            )
        if not (self.column or self.words):
            raise UserError(
                "reward.words: expected at least one word, or reward.column with the rows' own words"
            )
        if any(not str(word).strip() for word in self.words):
            raise UserError(f"reward.words: one of {list(self.words)} is blank, which every text contains")

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples; NaN where a row's column holds no word."""
        scores = [self._score(sample, row) for row, sample in enumerate(samples)]
        return self.scale * torch.tensor(scores, dtype=torch.float32)

    def _score(self, sample: Sample, row: int) -> float:
        listed = column_texts(sample, row, self.column) if self.column else self.words
        wanted = {canonical(str(word), self.case_sensitive) for word in listed}
        if not wanted:
            return math.nan
        response = canonical(sample.response, self.case_sensitive)
        found = sum(occurs(word, response, self.whole_words) for word in wanted)
        return {"share": found / len(wanted), "any": float(found > 0), "count": float(found)}[self.mode]


def canonical(text: str, case_sensitive: bool) -> str:
    """Text in a form in which equal writings are equal: composed, single spaces, folded unless case counts.

    >>> canonical("  STRASSE\\n nach  Köln", False) == canonical("Straße nach Ko\\u0308ln", False)
    True
    """
    spaced = " ".join(text.split())
    folded = spaced if case_sensitive else unicodedata.normalize("NFD", spaced).casefold()
    return unicodedata.normalize("NFC", folded)


def occurs(word: str, text: str, whole: bool) -> bool:
    """Whether the text contains the word, not as a part of a longer one if it is to be whole.

    >>> occurs("cat", "concatenate, cat.", True), occurs("cat", "concatenate", True)
    (True, False)
    """
    start = text.find(word)
    while start >= 0:
        end = start + len(word)
        goes_on = joined(text[:start][-1:], word[0]) or joined(word[-1], text[end : end + 1])
        if not (whole and goes_on):
            return True
        start = text.find(word, start + 1)
    return False


def joined(left: str, right: str) -> bool:
    """Whether two neighbouring characters belong to one word."""
    return is_word_character(left) and is_word_character(right)
