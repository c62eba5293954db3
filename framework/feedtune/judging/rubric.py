"""What is judged: a question about a response, and what each score means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feedtune.errors import UserError, nearest

FEWEST_LEVELS, MOST_LEVELS = 2, 9
"""A score is one digit: one token, whose probability a judge can be asked for."""

CANARY = ("prompt", "better", "worse")


@dataclass(frozen=True, kw_only=True)
class Rubric:
    """A question about a response, with levels from worst to best.

    Args:
        name: of one word; raters' lists show it.
        asks: the question, in a sentence or a few.
        levels: what each score means, worst first: 2 to 9 of them. The first is score 1.
        columns: of the task that the judge is shown too, such as [reference]; every row must have them.
        canaries: items whose order is known, with `prompt`, `better` and `worse`: they measure the judge.

    Raises:
        UserError: there are too few or too many levels, or a canary is incomplete.

    >>> Rubric(name="brief", asks="Is it brief?", levels=["long", "brief"]).scores
    ('1', '2')
    """

    name: str
    asks: str
    levels: Sequence[str]
    columns: Sequence[str] = ()
    canaries: Sequence[Mapping[str, str]] = ()

    def __post_init__(self) -> None:
        if not self.asks.strip():
            raise UserError("rubric.asks: expected a question, got nothing")
        if not FEWEST_LEVELS <= len(self.levels) <= MOST_LEVELS:
            raise UserError(
                f"rubric.levels: expected {FEWEST_LEVELS} to {MOST_LEVELS}, worst first, "
                f"got {len(self.levels)}"
            )
        for number, canary in enumerate(self.canaries):
            _check_canary(canary, f"rubric.canaries[{number}]")

    @property
    def scores(self) -> tuple[str, ...]:
        """The words that the judge chooses from, worst first."""
        return tuple(str(number) for number in range(1, len(self.levels) + 1))


def _check_canary(canary: Mapping[str, str], key: str) -> None:
    for name in CANARY:
        if not isinstance(canary.get(name), str):
            raise UserError(f"{key}.{name}: expected text, got {canary.get(name)!r}")
    for name in canary:
        if name not in CANARY:
            hint = nearest(str(name), CANARY)
            raise UserError(f"{key}.{name}: unknown key; a canary has {', '.join(CANARY)}.{hint}")
