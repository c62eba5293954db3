"""Several rewards added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from feedtune.contracts import RewardSource, Sample, Scores
from feedtune.errors import UserError, nearest
from feedtune.rewards import Missing, SourceFailure, call_source
from feedtune_plugins.rewards.checks import one_of

MISSING = ("nan", "ignore")


@dataclass(kw_only=True)
class Sum:
    """The weighted sum of other sources. Each one's own score is a part, by its name, before weighting.

    A sum among the sources brings its own parts along, as `outer/inner`.

    Args:
        sources: the sources by name.
        weights: factors by name; 1 where none is given. With 0 a source is logged and has no say.
        missing: what becomes of a row on which some source with a weight has no opinion: `nan`, the sum has
            none either; `ignore`, the others are added up (and it is NaN where none has an opinion). A source
            that failed is not silent: whatever this says, without it there is no sum.

    Raises:
        UserError: there are no sources, none has a weight, or a weight names none of them.

    >>> total = Sum(sources={"one": lambda samples: [1.0], "two": lambda samples: [2.0]}, weights={"two": -3})
    >>> total([Sample("Hi", "Ho")])
    Scores(total=tensor([-5.]), parts={'one': tensor([1.]), 'two': tensor([2.])})
    """

    sources: Mapping[str, RewardSource]
    weights: Mapping[str, float] = field(default_factory=dict)
    missing: Literal["nan", "ignore"] = "nan"

    def __post_init__(self) -> None:
        one_of("reward.missing", self.missing, MISSING)
        if not self.sources:
            raise UserError("reward.sources: expected at least one; add +reward@reward.sources.NAME=OPTION")
        for name, source in self.sources.items():
            check_callable(name, source)
        for name in self.weights:
            if name not in self.sources:
                known = ", ".join(self.sources)
                hint = nearest(name, self.sources)
                raise UserError(f"reward.weights.{name}: no source has this name; there are: {known}.{hint}")
        self._weights = {name: float(self.weights.get(name, 1.0)) for name in self.sources}
        if not any(self._weights.values()):
            raise UserError("reward.weights: all are 0, so there is nothing to learn")

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        """Scores of n samples, with the parts `[n]` of all sources."""
        parts: dict[str, Tensor] = {}
        sums = torch.zeros(len(samples))
        silent = torch.ones(len(samples), dtype=torch.bool)  # [n] no source with a weight has spoken yet
        failed = False  # the call of a source with a weight
        for name, source in self.sources.items():
            scores = score_by(name, source, samples)
            parts[name] = scores.total
            parts |= {f"{name}/{inner}": part for inner, part in scores.parts.items()}
            if self._weights[name] == 0:  # left out, since 0 x NaN is NaN
                continue
            failed |= isinstance(scores, Missing)
            weighted = self._weights[name] * scores.total
            sums = sums + (weighted.nan_to_num(nan=0.0) if self.missing == "ignore" else weighted)
            silent &= scores.total.isnan()
        if failed:
            return Missing(torch.full_like(sums, torch.nan), parts)
        return Scores(torch.where(silent, torch.nan, sums), parts)

    def with_sources(self, sources: Mapping[str, RewardSource]) -> Sum:
        """The same sum of these sources, which have the same names."""
        return replace(self, sources=sources)


def check_callable(name: str, source: object) -> None:
    """Refuse what is no reward source, such as a config without a `_target_`."""
    if not callable(source):
        kind = type(source).__name__
        raise UserError(f"reward.sources.{name}: expected a reward with a _target_, got {kind} {source!r}")


def score_by(name: str, source: RewardSource, samples: Sequence[Sample]) -> Scores:
    """One source's scores, checked; an error says which source it was."""
    try:
        return call_source(source, samples)
    except SourceFailure as failure:
        raise SourceFailure(f"reward.sources.{name}: {failure}", failure.retry_after) from failure
    except UserError as error:
        raise UserError(f"reward.sources.{name}: {error}") from error
