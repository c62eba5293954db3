"""What an answer or an event must be before it is kept: the same for the page, files and plugins."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, get_args

from feedtune.errors import UserError, nearest
from feedtune.feedback.records import Answer, Choice, Event, Item, Kind, RaterKind

LONGEST_NAME = 200  # characters of an id, a pseudonym, a tag or a kind of event
LOWEST, HIGHEST = 1.0, 5.0  # of ratings


def check_item(item: Item, where: str = "item") -> None:
    """Refuse an item that JSON cannot say, or that asks about nothing.

    Raises:
        UserError: beginning with `where`.
    """
    check_name(item.id, f"{where}: id")
    if not item.responses:
        raise UserError(f"{where}: it has no response")
    ids = [one.id for one in item.responses]
    for one in ids:
        check_name(one, f"{where}: id of a response")
    if len(set(ids)) < len(ids):
        raise UserError(f"{where}: two of its responses are the same")
    for name, value in (("prompt", item.prompt), *(("a response", one.text) for one in item.responses)):
        if not isinstance(value, str):
            raise UserError(f"{where}: {name} must be text, got {type(value).__name__}")
    said: tuple[tuple[str, Any], ...] = (("messages", list(item.messages)), ("columns", dict(item.columns)))
    for name, plain in said:
        try:
            json.dumps(plain, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(f"{where}: '{name}' holds what JSON cannot say: {error}") from error


def check_answer(answer: Answer, item: Item, where: str = "answer") -> None:
    """Refuse an answer that says nothing about the item.

    Raises:
        UserError: beginning with `where`.
    """
    for name, value in (("id", answer.id), ("rater", answer.rater), *(("a tag", tag) for tag in answer.tags)):
        check_name(value, f"{where}: {name}")
    _check_one_of(answer.kind, get_args(Kind), f"{where}: kind")
    _check_one_of(answer.by, get_args(RaterKind), f"{where}: by")
    seconds(answer.time, f"{where}: time")
    _check_responses(answer, item, where)
    _check_value(answer.kind, answer.value, f"{where}: value")


def _check_responses(answer: Answer, item: Item, where: str) -> None:
    wanted = 2 if answer.kind == "comparison" else 1
    if len(answer.responses) != wanted:
        raise UserError(
            f"{where}: a {answer.kind} is about {('one response', 'two responses')[wanted - 1]}, "
            f"got {len(answer.responses)}"
        )
    if len(set(answer.responses)) != wanted:
        raise UserError(f"{where}: the two responses of a comparison are the same")
    strangers = set(answer.responses) - {one.id for one in item.responses}
    if strangers:
        raise UserError(f"{where}: the item has no response '{min(strangers)}'")


def _check_value(kind: Kind, value: Any, where: str) -> None:
    if kind == "comparison":
        _check_one_of(value, get_args(Choice), where)
    elif kind == "rating":
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and LOWEST <= value <= HIGHEST):
            raise UserError(f"{where}: expected a number from {LOWEST:g} to {HIGHEST:g}, got {value!r}")
    elif not isinstance(value, str):
        raise UserError(f"{where}: expected text, got {value!r}")
    elif not value.strip():
        raise UserError(f"{where}: expected text, got nothing but blanks")


def check_event(event: Event, where: str = "event") -> None:
    """Refuse an event that cannot be counted with.

    Raises:
        UserError: beginning with `where`.
    """
    for name, value in (("id", event.id), ("response", event.response), ("kind", event.kind)):
        check_name(value, f"{where}: {name}")
    seconds(event.time, f"{where}: time")
    if not _is_number(event.value):
        raise UserError(f"{where}: value: expected a finite number, got {event.value!r}")
    whole = isinstance(event.position, int) and not isinstance(event.position, bool)
    if event.position is not None and not (whole and event.position >= 1):
        raise UserError(f"{where}: position: expected a whole number from 1, got {event.position!r}")
    likely = event.propensity
    if likely is not None and not (_is_number(likely) and 0 < likely <= 1):
        raise UserError(f"{where}: propensity: expected a number above 0 and up to 1, got {likely!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_name(value: Any, where: str) -> str:
    """An id, a pseudonym, a tag: one line of printable text that is not too long.

    >>> check_name("rater-7", "rater")
    'rater-7'

    Raises:
        UserError: beginning with `where`.
    """
    good = isinstance(value, str) and value.strip() == value and value.isprintable()
    if not good or not 0 < len(value) <= LONGEST_NAME:
        shown = repr(value)[:40]
        raise UserError(
            f"{where}: expected 1 to {LONGEST_NAME} printable characters without blanks around, got {shown}"
        )
    return str(value)


def seconds(time: Any, where: str) -> float:
    """A time of ISO 8601 with its zone, as seconds since 1970.

    >>> seconds("1970-01-01T01:00:00+01:00", "time"), seconds("1970-01-01T00:00:01.5Z", "time")
    (0.0, 1.5)

    Raises:
        UserError: beginning with `where`.
    """
    try:
        found = datetime.fromisoformat(time)
        if found.tzinfo is None:
            raise ValueError
        return found.timestamp()
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{where}: expected a time with its zone such as 2026-01-31T12:00:00Z, got {time!r}"
        ) from error


def _check_one_of(value: Any, known: Sequence[str], where: str) -> None:
    if value not in known:
        hint = nearest(value, known) if isinstance(value, str) else ""
        raise UserError(f"{where}: expected one of {', '.join(known)}, got {value!r}.{hint}")
