"""Rankings as texts: their entries, and how probably people look at each place."""

from __future__ import annotations

import math
from collections.abc import Sequence

from feedtune.errors import UserError

Examination = float | Sequence[float]
"""A number e: place k is looked at with probability k^-e; a list: these probabilities, from place 1."""


def entries_of(text: str, separator: str | None = None) -> list[str]:
    """The entries of a ranking, best place first; None: words between whitespace.

    >>> entries_of("music  food"), entries_of("Rock music\\n\\n Good food", "\\n")
    (['music', 'food'], ['Rock music', 'Good food'])
    """
    return [one for part in text.split(separator) if (one := part.strip())]


def first_places(entries: Sequence[str]) -> dict[str, int]:
    """The place of each different entry, from 1; a repetition is not a place of its own.

    >>> first_places(["music", "food", "music"])
    {'music': 1, 'food': 2}
    """
    places: dict[str, int] = {}
    for place, entry in enumerate(entries, 1):
        places.setdefault(entry, place)
    return places


def check_examination(key: str, given: Examination) -> None:
    """Refuse what are no probabilities, or could be 0: what nobody looks at, nobody's clicks can judge.

    Raises:
        UserError: naming `key`.
    """
    numbers = [given] if isinstance(given, int | float) else list(given)
    if isinstance(given, int | float):
        if not 0 <= given < math.inf:
            raise UserError(f"{key}: expected an exponent from 0, got {given}")
    elif not numbers or not all(0 < one <= 1 for one in numbers):
        raise UserError(
            f"{key}: expected the probabilities with which each place is looked at, above 0 and at most 1, "
            f"got {numbers}"
        )


def examined(key: str, given: Examination, place: int) -> float:
    """The probability with which people look at a place, from 1.

    >>> examined("key", 1.0, 4), examined("key", [0.9, 0.5], 2)
    (0.25, 0.5)

    Raises:
        UserError: naming `key`; a list ends before this place.
    """
    if isinstance(given, int | float):
        return float(place**-given)
    if place > len(given):
        raise UserError(f"{key}: it has probabilities for {len(given)} places; place {place} was shown")
    return float(given[place - 1])
