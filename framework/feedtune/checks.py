"""Refusals of values that a plugin could not mean, by the key that the user set."""

from __future__ import annotations

from feedtune.errors import UserError, nearest


def check_unit(key: str, value: float) -> None:
    """Refuse what is not in [0, 1]."""
    if not 0 <= value <= 1:
        raise UserError(f"{key}: expected a number in [0, 1], got {value}")


def check_positive(key: str, value: float) -> None:
    """Refuse what is not above 0."""
    if not value > 0:
        raise UserError(f"{key}: expected a number above 0, got {value}")


def check_not_negative(key: str, value: float) -> None:
    """Refuse what is below 0."""
    if not value >= 0:
        raise UserError(f"{key}: expected at least 0, got {value}")


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse what is not one of the choices."""
    if value not in choices:
        raise UserError(
            f"{key}: expected one of {', '.join(choices)}, got '{value}'.{nearest(value, choices)}"
        )


def check_used(key: str, value: object, used: bool, by: str) -> None:
    """Refuse a value that would change nothing: `by` says what would have a use for it.

    >>> check_used("algorithm.length", None, False, "algorithm.aggregation=row_sum")
    """
    if value is not None and not used:
        raise UserError(f"{key}: only {by} has a use for it; leave it null")
