"""A language model that judges as a reward."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from feedtune.checks import check_choice, check_unit, check_used
from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.judging import Judge, Judging, Rubric
from feedtune_plugins.rewards.payloads import REFERENCE

Mode = Literal["score", "pairwise"]
Against = Literal["reference", "group"]


@dataclass(kw_only=True)
class JudgeReward:
    """What a judge says of responses by a rubric, from 0 (worst) to 1 (best).

    Args:
        judge: who judges.
        rubric: what for.
        mode: `score`, the mean level of the response, weighed by the levels' probabilities where the judge
            tells them; `pairwise`, the mean probability that the response is better than others to the same
            prompt, each pair asked in both orders.
        against: of pairwise, which others: `reference` (also null), the row's column of this name; `group`,
            the other responses to the prompt in the same call, and the reference where there are none. A
            score then depends on the group, as suits algorithms that compare within groups.
        min_canaries: least share, in [0, 1], of the rubric's canaries that the judge must get right.

    Raises:
        UserError: an option is out of range or has no use; at a call, a judge that is refused.
    """

    judge: Judge
    rubric: Rubric
    mode: Mode = "score"
    against: Against | None = None
    min_canaries: float | None = None

    def __post_init__(self) -> None:
        check_choice("reward.mode", self.mode, ("score", "pairwise"))
        if self.against is not None:
            check_choice("reward.against", self.against, ("reference", "group"))
        check_used("reward.against", self.against, self.mode == "pairwise", "reward.mode=pairwise")
        if self.min_canaries is not None:
            check_unit("reward.min_canaries", self.min_canaries)
            known = "a rubric with canaries"
            check_used("reward.min_canaries", self.min_canaries, bool(self.rubric.canaries), known)
        self._judging = Judging(self.judge, self.rubric)
        self._right = math.nan  # share of canaries

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"reward.judge={self._judging.label}"

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples; NaN where a reply was no answer, or there is nothing to compare with."""
        if not samples:
            return torch.zeros(0)
        self._check_canaries()
        return self._judging.rate(samples) if self.mode == "score" else self._shares(samples)

    def counts(self) -> Mapping[str, float]:
        """What `Judging.counts` says, and canaries: the share that is right, where the rubric has any."""
        found = self._judging.counts()
        if self.mode == "score":
            del found["position_bias"]
        return {**({"canaries": self._right} if self.rubric.canaries else {}), **found}

    def _check_canaries(self) -> None:
        self._right = right = self._judging.canaries(self.mode)
        if self.min_canaries is not None and not right >= self.min_canaries:
            raise UserError(
                f"reward.min_canaries: {self._judging.label} gets {right:.0%} of the rubric's "
                f"{len(self.rubric.canaries)} items of known order right, expected at least "
                f"{self.min_canaries:.0%}; choose another judge or rubric"
            )

    def _shares(self, samples: Sequence[Sample]) -> Tensor:
        """Each sample's mean probability of being better than those that it is compared with."""
        pairs = list(self._pairs(samples))
        found = self._judging.compare([(samples[row], text) for row, _, text in pairs]).first
        sums, counts = torch.zeros(len(samples)), torch.zeros(len(samples))
        for (row, other, _), first in zip(pairs, found.tolist(), strict=True):
            if math.isnan(first):
                continue
            for one, share in ((row, first), (other, 1 - first)):
                if one is not None:
                    sums[one] += share
                    counts[one] += 1
        return torch.where(counts > 0, sums / counts, torch.nan)

    def _pairs(self, samples: Sequence[Sample]) -> Iterator[tuple[int, int | None, str]]:
        """(row, the row that it is compared with if there is one, that one's text)."""
        for rows in self._groups(samples):
            if len(rows) > 1:
                yield from (
                    (one, other, samples[other].response) for one, other in itertools.combinations(rows, 2)
                )
            else:
                yield from ((rows[0], None, text) for text in _references(samples[rows[0]]))

    def _groups(self, samples: Sequence[Sample]) -> list[list[int]]:
        """Rows that are compared with each other; each by itself where the reference is what counts."""
        if self.against != "group":
            return [[row] for row in range(len(samples))]
        groups: dict[str, list[int]] = {}
        for row, sample in enumerate(samples):
            groups.setdefault(f"{sample.prompt}\n{list(sample.messages)}", []).append(row)
        return list(groups.values())


def _references(sample: Sample) -> list[str]:
    """The row's reference texts; none: it has none, or is missing one.

    >>> _references(Sample("Hi", "Ho", columns={"reference": "Ha"})), _references(Sample("Hi", "Ho"))
    (['Ha'], [])
    """
    found = sample.columns.get(REFERENCE)
    texts = [found] if isinstance(found, str) else list(found) if isinstance(found, list | tuple) else []
    return [text for text in texts if isinstance(text, str) and text.strip()]
