"""Checks of a reward's own options, so that a bad value fails by name before anything is scored."""

from __future__ import annotations

from collections.abc import Sequence

from feedtune.errors import UserError, nearest


def one_of(key: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is not one of the choices.

    >>> one_of("reward.mode", "al", ("all", "any"))
    Traceback (most recent call last):
    feedtune.errors.UserError: reward.mode: expected one of all, any; got 'al'. Did you mean 'all'?
    """
    if value not in choices:
        hint = nearest(str(value), choices)
        raise UserError(f"{key}: expected one of {', '.join(choices)}; got '{value}'.{hint}")


def at_least(key: str, value: float, least: float) -> None:
    """Refuse a number below the least that makes sense.

    >>> at_least("reward.target", 0, 1)
    Traceback (most recent call last):
    feedtune.errors.UserError: reward.target: expected 1 or more, got 0
    """
    if not value >= least:  # not "<": NaN is refused too
        raise UserError(f"{key}: expected {least} or more, got {value}")
