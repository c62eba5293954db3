"""A judge with a rubric: ratings and comparisons, and how far both can be relied on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from feedtune.contracts import Sample
from feedtune.judging.contract import Judge, Question, Reply
from feedtune.judging.defences import is_hollow
from feedtune.judging.questions import FIRST, SECOND, comparison, rating
from feedtune.judging.reading import weights_of
from feedtune.judging.rubric import Rubric

EVEN = 0.5


@dataclass(frozen=True)
class Preferences:
    """What became of comparisons of n pairs, each asked in both orders."""

    first: Tensor  # [n] probability that the pair's first response is better; NaN: not known
    agreed: Tensor  # [n] bool: whichever stood first, the same one was better


@dataclass
class Noted:
    """What has happened since the counts were last taken."""

    unreadable: int = 0  # replies that were no answer
    hollow: int = 0  # responses that say nothing, of which the judge was not asked
    leanings: float = 0.0  # sum of position biases
    pairs: int = 0  # that the sum is of


class Judging:
    """Asks a judge by a rubric.

    Responses that say nothing (`is_hollow`) are never shown to it: they have the lowest score, and lose
    against all others. A judge may be talked round by them.

    Args:
        judge: who.
        rubric: what for.
    """

    def __init__(self, judge: Judge, rubric: Rubric) -> None:
        self.judge, self.rubric = judge, rubric
        self._noted = Noted()
        self._right: dict[str, float] = {}  # share of canaries by how they were asked about

    @property
    def label(self) -> str:
        """What messages and raters' lists call it."""
        return f"{self.judge.label}/{self.rubric.name}"

    def rate(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples from 0 (lowest level) to 1 (highest); NaN where the reply was no answer.

        The score is the mean over all levels, weighed by their probabilities, where the judge says how
        probable each is (Liu et al. 2023, arXiv:2303.16634), and else the level that it names.
        """
        scores = torch.zeros(len(samples))
        asked = [row for row, sample in enumerate(samples) if not is_hollow(sample.response)]
        self._noted.hollow += len(samples) - len(asked)
        for row, weights in zip(
            asked, self._weights([rating(samples[row], self.rubric) for row in asked]), strict=True
        ):
            scores[row] = math.nan if weights is None else _mean_level(list(weights.values()))
        return scores

    def compare(self, pairs: Sequence[tuple[Sample, str]]) -> Preferences:
        """Whether a sample's response is better than another to the same prompt, for n pairs.

        Each pair is shown in both orders. The mean of both is taken, so that a liking for the place that a
        response stands in cancels (Wang et al. 2023, arXiv:2305.17926).
        """
        first = torch.tensor([_unasked(sample.response, other) for sample, other in pairs])
        agreed = first != EVEN  # true of NaN too: those are filled in below
        asked = first.isnan().nonzero().flatten().tolist()
        self._noted.hollow += sum(
            is_hollow(text) for row in set(range(len(pairs))) - set(asked) for text in _texts(pairs[row])
        )
        questions = []
        for row in asked:
            sample, other = pairs[row]
            questions.append(comparison(sample, sample.response, other, self.rubric))
            questions.append(comparison(sample, other, sample.response, self.rubric))
        weights = self._weights(questions)
        for place, row in enumerate(asked):
            shown_first, shown_second = weights[2 * place], weights[2 * place + 1]
            first[row], agreed[row] = self._settled(shown_first, shown_second)
        return Preferences(first, agreed)

    def canaries(self, how: Literal["score", "pairwise"]) -> float:
        """Share of the rubric's items of known order that the judge gets right; NaN: there are none.

        They are asked about once; a tie is not right, nor is a reply that is no answer.
        """
        if how not in self._right:
            before, self._noted = self._noted, Noted()  # what happens here is no news of the samples
            try:
                self._right[how] = self._share_right(how)
            finally:
                self._noted = before
        return self._right[how]

    def counts(self) -> dict[str, float]:
        """What has been noted, and what the judge has counted, since they were last taken.

        unreadable (replies), hollow (responses), position_bias (by how much the probability of the response
        that is shown first exceeds 1/2, over pairs in both orders; NaN: there was none), and the judge's own.
        """
        noted, self._noted = self._noted, Noted()
        bias = noted.leanings / noted.pairs if noted.pairs else math.nan
        own = {"unreadable": noted.unreadable, "hollow": noted.hollow, "position_bias": bias}
        return {**{name: float(value) for name, value in own.items()}, **self.judge.counts()}

    def _weights(self, questions: Sequence[Question]) -> list[dict[str, float] | None]:
        """The weights of each reply; unreadable ones are counted."""
        replies: Sequence[Reply] = self.judge(questions) if questions else []
        found = [weights_of(reply, asked.words) for asked, reply in zip(questions, replies, strict=True)]
        self._noted.unreadable += sum(one is None for one in found)
        return found

    def _settled(
        self, shown_first: Mapping[str, float] | None, shown_second: Mapping[str, float] | None
    ) -> tuple[float, bool]:
        """The probability of the pair's first response, and whether the order made no difference."""
        if shown_first is None or shown_second is None:
            return math.nan, False
        one, other = shown_first[FIRST], shown_second[SECOND]
        self._noted.leanings += (one + shown_second[FIRST]) / 2 - EVEN
        self._noted.pairs += 1
        return (one + other) / 2, (one - EVEN) * (other - EVEN) > 0

    def _share_right(self, how: Literal["score", "pairwise"]) -> float:
        known = self.rubric.canaries
        if not known:
            return math.nan
        better = [_canary(one, one["better"], self.rubric) for one in known]
        if how == "pairwise":
            right = self.compare([(s, one["worse"]) for s, one in zip(better, known, strict=True)])
            return float(((right.first > EVEN) & right.agreed).float().mean())
        worse = [_canary(one, one["worse"], self.rubric) for one in known]
        scores = self.rate([*better, *worse])
        return float((scores[: len(known)] > scores[len(known) :]).float().mean())


def _mean_level(weights: Sequence[float]) -> float:
    """From 0 to 1.

    >>> _mean_level([0.5, 0.0, 0.5]), _mean_level([0.0, 0.0, 1.0])
    (0.5, 1.0)
    """
    return sum(level * weight for level, weight in enumerate(weights)) / (len(weights) - 1)


def _unasked(response: str, other: str) -> float:
    """What needs no judge: equal responses, and those that say nothing; NaN: it does.

    >>> _unasked("Hi", "Hi"), _unasked("Hi", ":"), _unasked("", "Hi"), _unasked("", ":")
    (0.5, 1.0, 0.0, 0.5)
    """
    hollow, other_hollow = is_hollow(response), is_hollow(other)
    if hollow or other_hollow or response == other:
        return EVEN + (other_hollow - hollow) / 2
    return math.nan


def _texts(pair: tuple[Sample, str]) -> tuple[str, str]:
    return pair[0].response, pair[1]


def _canary(canary: Mapping[str, str], response: str, rubric: Rubric) -> Sample:
    """A canary as a sample; columns that the rubric shows are empty."""
    return Sample(canary["prompt"], response, columns=dict.fromkeys(rubric.columns, ""))
