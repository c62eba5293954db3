"""How varied a response is: distinct n-grams (Li et al. 2016, arXiv:1510.03055)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from feedtune.contracts import Sample, Scores
from feedtune.errors import UserError


@dataclass(kw_only=True)
class Variety:
    """Different n-grams of words as a share of all in a response, averaged over n = 1, ..., `longest`.

    1: nothing is repeated. A response with fewer than n words has no n-gram, and scores 0 for that n: an
    empty one scores 0. The parts, for logging, are the shares of each n.

    Args:
        longest: n-grams of up to so many words; 1 or more. More asks for longer responses.
        scale: times what; a negative number rewards repeating.

    Raises:
        UserError: `longest` is below 1.

    >>> Variety(longest=1)([Sample("Hi", "a rose is a rose"), Sample("Hi", "")]).total
    tensor([0.6000, 0.0000])
    """

    longest: int = 2
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise UserError(f"reward.longest: expected 1 or more, got {self.longest}")

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        """Scores `[n]` of n samples, and their parts `distinct_1`, `distinct_2`, ..."""
        texts = [sample.response.lower().split() for sample in samples]
        sizes = range(1, self.longest + 1)
        parts = {f"distinct_{n}": torch.tensor([distinct(text, n) for text in texts]) for n in sizes}
        return Scores(self.scale * torch.stack(list(parts.values())).mean(0), parts)


def distinct(words: Sequence[str], n: int) -> float:
    """Different n-grams among all; 0 where there is none.

    >>> distinct(["a", "rose", "is", "a", "rose"], 2)
    0.75
    """
    grams = [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]
    return len(set(grams)) / max(1, len(grams))
