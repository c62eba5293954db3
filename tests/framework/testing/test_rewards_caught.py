"""Reward sources that break one law each: the suite finds it out, and no other law."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from breaking import broken_laws
from feedtune.contracts import Sample
from feedtune.testing import RewardSuite
from feedtune.testing.rewards import SAMPLES
from feedtune.testing.runner import readable

CALLS = itertools.count()


class Sound:
    """Scores the letters of a response; no opinion on those that ask back."""

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        return [float("nan") if "?" in s.response else float(len(s.response)) for s in samples]


class Content(Sound):
    """Scores everything alike, whatever it is."""

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        return [1.0 for _ in samples]


class Scribbling(Sound):
    """Writes into the columns that it is shown."""

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        for sample in samples:
            sample.columns["seen"] = True  # type: ignore[index]
        return super().__call__(samples)


class Moody(Sound):
    """Adds something at every call."""

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        return [score + next(CALLS) for score in super().__call__(samples)]


class Dicing(Sound):
    """Decides by the global generator what nothing is worth, the same for all of a process."""

    def __init__(self) -> None:
        self.luck = float(torch.rand(()))

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        return [score + self.luck for score in super().__call__(samples)]


class ByRow(Sound):
    """Shifts the scores of the whole batch by a row, unless the sample that comes first is first."""

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        scores = super().__call__(samples)
        moved = len(samples) == len(SAMPLES) and not samples[0].response.startswith("I love it")
        return scores[1:] + scores[:1] if moved else scores


class Centred(Sound):
    """Takes off the mean of the batch, if it is a small one."""

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        scores = super().__call__(samples)
        return [score - scores[0] for score in scores] if len(scores) in (1, 4) else scores


class Catching(Sound):
    """Where no sample of a larger batch is without an opinion it gives a point more."""

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        scores = super().__call__(samples)
        return [score + (len(scores) == len(SAMPLES) - 1) for score in scores]


class AfraidOfSilence(Sound):
    """Divides by the letters of a response, and has looked at its samples' own alone."""

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        return [
            0 / (s.response != " \n") + score
            for s, score in zip(samples, super().__call__(samples), strict=True)
        ]


class Curious(Sound):
    """Scores the number of columns too."""

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        return [len(s.columns) + score for s, score in zip(samples, super().__call__(samples), strict=True)]


class Undocumented(Sound):
    __doc__ = None


BROKEN: dict[type[Sound], str] = {
    Content: "scores are one a sample and tell them apart",
    Scribbling: "samples stay as they were",
    Moody: "the same samples score the same again",
    Dicing: "scores come from no global randomness",
    ByRow: "samples may stand in any order",
    Centred: "a score depends on no other sample",
    Catching: "no opinion stays with its sample",
    AfraidOfSilence: "silence is scored too",
    Curious: "a column that nobody asked for changes nothing",
    Undocumented: "its docstring says what it is",
}
MORE = {
    Moody: set(BROKEN.values())
    - {"samples stay as they were", "silence is scored too", "its docstring says what it is"},
}
"""What cannot but break with it."""


def suite_of(kind: type[Sound]) -> type[RewardSuite]:
    class Suite(RewardSuite):
        def make(self) -> Any:
            return kind()

    return Suite


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_source_is_found_out(kind: type[Sound]) -> None:
    found = broken_laws(suite_of(kind))
    assert {BROKEN[kind]} <= set(found) <= {BROKEN[kind], *MORE.get(kind, ())}, found


def test_a_sound_one_breaks_none() -> None:
    assert broken_laws(suite_of(Sound)) == {}


def test_every_law_is_broken_by_somebody() -> None:
    """The law of parameters has tests of its own, in test_turning.py."""
    laws = {readable(law) for law in RewardSuite.laws()}
    assert laws - set(BROKEN.values()) == {"no parameter is without effect"}
