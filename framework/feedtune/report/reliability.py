"""The reliability of a reward model: how often it is right, beside how often it expects to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from feedtune.errors import UserError

CERTAIN = 1.96  # standard errors on each side of a share: 95 of 100 intervals hold the true one


@dataclass(frozen=True)
class Bin:
    """Pairs of which a reward model was about equally sure."""

    predicted: float  # share that it expects to rank right
    observed: float  # share that it ranks right
    pairs: float


NO_BIN = Bin(predicted=math.nan, observed=math.nan, pairs=math.nan)


def read_bins(value: Any, where: str) -> list[Bin]:
    """The bins of an evaluation.json; none where it has no such key.

    Raises:
        UserError: beginning with `where`; it is no list of bins, or a share is not in [0, 1].
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise UserError(f"{where}: expected a list of bins, got {str(value)[:40]!r}")
    return [_bin(one, f"{where}[{index}]") for index, one in enumerate(value)]


def _bin(value: Any, where: str) -> Bin:
    try:
        found = Bin(*(float(value[name]) for name in ("predicted", "observed", "pairs")))
    except (KeyError, TypeError, ValueError, OverflowError):
        found = NO_BIN
    if 0 <= found.predicted <= 1 and 0 <= found.observed <= 1 and 0 < found.pairs < math.inf:
        return found
    raise UserError(
        f"{where}: expected 'predicted' and 'observed' from 0 to 1 and 'pairs' above 0, "
        f"got {str(value)[:60]!r}"
    )


def interval(one: Bin) -> tuple[float, float]:
    """Where the share of a bin may truly lie, by Wilson's interval (1927) of 95 %.

    >>> [round(end, 3) for end in interval(Bin(predicted=0.9, observed=0.5, pairs=10))]
    [0.237, 0.763]
    """
    z2 = CERTAIN**2 / one.pairs
    middle = (one.observed + z2 / 2) / (1 + z2)
    spread = math.sqrt(z2 * one.observed * (1 - one.observed) + z2**2 / 4) / (1 + z2)
    return max(0.0, middle - spread), min(1.0, middle + spread)


def in_words(bins: Sequence[Bin]) -> str:
    """The same for those who cannot see it.

    >>> in_words([Bin(predicted=0.525, observed=0.5, pairs=8), Bin(predicted=0.97, observed=0.9, pairs=1)])
    'sure of 52% of 8 pairs, right in 50%; sure of 97% of 1 pair, right in 90%'
    """
    return "; ".join(
        f"sure of {one.predicted:.0%} of {one.pairs:.0f} pair{'s' * (one.pairs != 1)}, "
        f"right in {one.observed:.0%}"
        for one in bins
    )
