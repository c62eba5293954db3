"""How long a response is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from feedtune.contracts import Sample
from feedtune_plugins.rewards.checks import at_least, one_of
from feedtune_plugins.rewards.text import UNITS, Unit

SHAPES = ("exact", "at_least", "at_most")


@dataclass(kw_only=True)
class Length:
    """A score in [0, 1] for a length n against a target t, never flat where there is something to gain.

    - `exact`: min(n, t) / max(n, t). Peaks with 1 at t; half or twice as long is worth 1/2.
    - `at_least`: min(n / t, 1). Rises linearly up to t, then stays.
    - `at_most`: min(t / n, 1). 1 up to t, then falls; twice as long is worth 1/2.

    An empty response scores 0, except under `at_most`, where it scores 1: add a source that wants words.

    Args:
        target: the length t, 1 or more.
        shape: what to do with lengths on either side of it.
        unit: words between whitespace, or characters; a run of whitespace counts as one character, and
            none at the ends, so that padding earns nothing.

    >>> Length(target=4)([Sample("Hi", "Well, hello there, you!"), Sample("Hi", "Hello you")])
    tensor([1.0000, 0.5000])
    """

    target: int = 20
    shape: Literal["exact", "at_least", "at_most"] = "exact"
    unit: Unit = "words"

    def __post_init__(self) -> None:
        at_least("reward.target", self.target, 1)
        one_of("reward.shape", self.shape, SHAPES)
        one_of("reward.unit", self.unit, UNITS)

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples."""
        return torch.tensor([self._score(sample.response) for sample in samples], dtype=torch.float32)

    def _score(self, response: str) -> float:
        words = response.split()
        length = len(words) if self.unit == "words" else len(" ".join(words))
        rising = min(length / self.target, 1.0)
        falling = self.target / max(length, self.target)
        return {"exact": rising * falling, "at_least": rising, "at_most": falling}[self.shape]
