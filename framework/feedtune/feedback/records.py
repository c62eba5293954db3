"""What is asked of raters and what they answer; what happened to responses that were shown.

All are plain values, the same in the store, over HTTP and in JSONL. An id says what a thing is: the same
question asked twice, or the same answer sent twice, has the same id and counts once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Kind = Literal["comparison", "rating", "edit", "comment"]
"""A comparison is of two responses, everything else of one."""

Choice = Literal["a", "b", "tie", "both_bad", "skip"]
"""What a comparison can say of its first (a) and second (b) response as they were shown."""

RaterKind = Literal["person", "judge", "simulated"]


@dataclass(frozen=True, kw_only=True)
class Response:
    """What was said to a prompt, and by whom."""

    id: str
    text: str
    run: str | None = None  # the name of a run
    checkpoint: str | None = None  # sha256 of the weights that said it


@dataclass(frozen=True, kw_only=True)
class Item:
    """A prompt with one response to rate or edit, or several to compare."""

    id: str
    prompt: str
    responses: tuple[Response, ...]
    messages: tuple[Mapping[str, str], ...] = ()  # the conversation before the response, if it is one
    columns: Mapping[str, Any] = field(default_factory=dict)  # of the task's row, values that JSON can say


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one rater said about one item.

    `value` is a `Choice` for a comparison, a number from 1 to 5 for a rating (judges may give fractions), and
    a text for an edit or a comment.
    """

    id: str
    item: str
    kind: Kind
    responses: tuple[str, ...]  # ids, as they were shown: a and b of a comparison, else the one it is about
    value: str | float
    rater: str  # a pseudonym
    by: RaterKind = "person"
    time: str  # UTC, ISO 8601
    tags: tuple[str, ...] = ()  # free words


class Answered(NamedTuple):
    """That somebody has answered a question, and not what."""

    item: str  # its id
    subject: str  # what of it was asked about: see `feedtune.feedback.ids.subject_of`
    rater: str


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a response that was shown: `shown`, `click`, `purchase`, ..."""

    id: str
    response: str  # id of the response
    kind: str
    value: float = 1.0  # seconds of a dwell, the price of a purchase; 1 where it only happened
    position: int | None = None  # from 1, of the entry of a ranking that it is about
    propensity: float | None = None  # with which the response was said, in an event `shown`; in (0, 1]
    time: str  # UTC, ISO 8601
