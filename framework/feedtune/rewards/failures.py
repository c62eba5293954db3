"""One call of a reward source: what it raises or returns wrongly is named, with its rows."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from feedtune.contracts import RewardSource, Sample, Scores, as_scores
from feedtune.errors import UserError
from feedtune.profiling import timed

NAMED_ROWS = 5
"""Most rows that a message lists."""


OWN = ("feedtune", "feedtune_plugins")
"""Packages whose lines are nobody's to mend."""


class SourceFailure(UserError):  # noqa: N818 - what happened to the source, not a mistake in a program
    """A reward source did not do its work: it raised, was late, or returned what are no scores.

    Other `UserError`s are about what the user chose, and last. This may pass: `RewardCalls` says how often
    the call is tried again, and what becomes of its rows if that does not help.

    Args:
        message: for the user.
        retry_after: seconds for which the source asked to be left alone.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Missing(Scores):
    """What a call that failed for good leaves behind: no score of any row.

    Not the same as a source that has no opinion: who adds scores up must not take the others alone.

    >>> Missing.of(2).total
    tensor([nan, nan])
    """

    @classmethod
    def of(cls, count: int) -> Missing:
        """So many rows without a score."""
        return cls(torch.full((count,), torch.nan))


@timed("reward")
def score_samples(reward: RewardSource, samples: Sequence[Sample]) -> Scores:
    """The source's scores of these samples, checked. In messages it is called by its `label`, if it has one.

    Raises:
        UserError: it had no opinion on any row (and none of its calls failed), or refuses what it was given.
        SourceFailure: it raised, or returned the wrong number or kind of values.
    """
    scores = call_source(reward, samples)
    if len(samples) and not isinstance(scores, Missing) and bool(scores.total.isnan().all()):
        silent = [part for part, values in scores.parts.items() if bool(values.isnan().all())]
        whose = f"sources {', '.join(silent)} of " if silent else ""
        raise UserError(
            f"{whose}{name_of(reward)}: every one of {len(samples)} scores is NaN, "
            "so there is nothing to learn"
        )
    return scores


def call_source(source: RewardSource, samples: Sequence[Sample]) -> Scores:
    """What a source says of these samples, checked.

    Raises:
        UserError: the source's own, about what the user chose.
        SourceFailure: it raised something else, or returned the wrong number or kind of values.
    """
    try:
        value = source(samples)
    except UserError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise SourceFailure(
            f"{name_of(source)} failed on {counted(samples)}: {type(error).__name__}: {said}"
            f"{_place_of(error, source)}"
        ) from error
    return value if isinstance(value, Missing) else checked_scores(value, samples, _plain_name(source))


def _place_of(error: Exception, source: RewardSource) -> str:
    """The last line of the source's own file that the error came through, such as ` (judge.py:12)`.

    Nothing for feedtune's own sources: what fails there is a service, or the data.
    """
    made_of = source if inspect.isroutine(source) else type(source)
    if made_of.__module__.split(".")[0] in OWN:
        return ""
    try:
        file = inspect.getfile(made_of)
    except (TypeError, OSError):  # built in, or typed in
        return ""
    lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == file]
    return f" ({Path(file).name}:{lines[-1]})" if lines else ""


def checked_scores(value: Any, samples: Sequence[Sample], name: str) -> Scores:
    """One finite number, or NaN, for each of these samples.

    Args:
        value: what a source returned.
        samples: what it was shown.
        name: of the source, for messages.

    Raises:
        SourceFailure: of another number or kind, or infinite; it names the rows and the first prompt.

    >>> checked_scores([1, 2.5], [Sample("Hi", "a"), Sample("Hi", "b")], "mine").total
    tensor([1.0000, 2.5000])
    """
    infinite = _infinite_rows(value)
    if infinite and infinite[-1] < len(samples):
        raise SourceFailure(f"reward '{name}': {_said_of_rows(infinite, samples)}")
    try:
        scores = as_scores(value, len(samples), name)
    except UserError as error:
        raise SourceFailure(f"{error}{_first_prompt(samples)}") from error
    except OverflowError as error:  # a whole number beyond all floats
        raise SourceFailure(f"reward '{name}': {error}{_first_prompt(samples)}") from error
    for part, values in scores.parts.items():
        if bool(values.isinf().any()):
            rows = values.isinf().nonzero().flatten().tolist()
            raise SourceFailure(f"reward '{name}': part '{part}': {_said_of_rows(rows, samples)}")
    return scores


def name_of(source: RewardSource) -> str:
    """What messages call a source: its `label`, or the name of its class or function.

    >>> def vowels(samples): ...
    >>> name_of(vowels)
    "reward 'vowels'"
    """
    label = getattr(source, "label", None)
    return label if isinstance(label, str) else f"reward '{_plain_name(source)}'"


def counted(samples: Sequence[Sample]) -> str:
    """How many samples, and how the first begins.

    >>> counted([Sample("How are you?", "Fine."), Sample("And you?", "Fine.")])
    "2 samples (the first prompt: 'How are you?')"
    """
    number = f"{len(samples)} sample{'s' if len(samples) != 1 else ''}"
    return number + _first_prompt(samples)


def shortened(text: str, width: int = 40) -> str:
    """A text as messages show it, in quotes.

    >>> shortened("the cat sat on the mat", 10)
    "'the cat...'"
    """
    return repr(text if len(text) <= width else text[: width - 3] + "...")


def _plain_name(source: RewardSource) -> str:
    return str(getattr(source, "__name__", type(source).__name__))


def _first_prompt(samples: Sequence[Sample]) -> str:
    return f" (the first prompt: {shortened(samples[0].prompt)})" if samples else ""


def _infinite_rows(value: Any) -> list[int]:
    """Rows, from 0, with an infinite score; none where there are no scores to speak of."""
    try:
        total = torch.as_tensor(value.total if isinstance(value, Scores) else value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return []
    rows: list[int] = total.isinf().nonzero().flatten().tolist() if total.dim() == 1 else []
    return rows


def _said_of_rows(rows: Sequence[int], samples: Sequence[Sample]) -> str:
    """Which rows, from 1, are infinite, and the first one's prompt."""
    listed = ", ".join(str(row + 1) for row in rows[:NAMED_ROWS])
    more = f" and {len(rows) - NAMED_ROWS} more" if len(rows) > NAMED_ROWS else ""
    whose = "the scores of rows" if rows[1:] else "the score of row"
    return f"{whose} {listed}{more} {'are' if rows[1:] else 'is'} infinite ({_prompt(samples, rows[0])})"


def _prompt(samples: Sequence[Sample], row: int) -> str:
    return f"the prompt of row {row + 1}: {shortened(samples[row].prompt)}"
