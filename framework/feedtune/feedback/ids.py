"""Ids of what is asked: hashes of the content, so that the same thing has one id wherever it is met."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from feedtune.feedback.records import Item, Response


def content_id(*parts: Any) -> str:
    """An id of 32 letters for parts that JSON can say; order of keys and lone surrogates are no trouble.

    >>> content_id("judge", {"a": 1, "b": 2}) == content_id("judge", {"b": 2, "a": 1})
    True
    >>> content_id("ab", "c") == content_id("a", "bc")
    False
    """
    said = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)  # ASCII
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def response_id(prompt: str, text: str, run: str | None = None, checkpoint: str | None = None) -> str:
    """The id of what a run's checkpoint said to a prompt.

    >>> response_id("1+1?", "2") == response_id("1+1?", "2", run="mine")
    False
    """
    return content_id("response", prompt, text, run, checkpoint)


def item_id(prompt: str, messages: Sequence[Mapping[str, str]], responses: Iterable[str]) -> str:
    """The id of a question; in which order its responses are named does not matter.

    >>> item_id("1+1?", (), ["a", "b"]) == item_id("1+1?", (), ["b", "a"])
    True
    """
    return content_id("item", prompt, [dict(one) for one in messages], sorted(responses))


def subject_of(responses: Iterable[str]) -> str:
    """What an answer is about: the responses with these ids, whichever was shown first.

    >>> subject_of(["a", "b"]) == subject_of(["b", "a"])
    True
    """
    return content_id(*sorted(responses))


def response_of(prompt: str, text: str, *, run: str | None = None, checkpoint: str | None = None) -> Response:
    """A response with its id.

    >>> response_of("1+1?", "2").id == response_id("1+1?", "2")
    True
    """
    return Response(id=response_id(prompt, text, run, checkpoint), text=text, run=run, checkpoint=checkpoint)


def item_of(
    prompt: str,
    responses: Sequence[Response],
    *,
    messages: Sequence[Mapping[str, str]] = (),
    columns: Mapping[str, Any] | None = None,
) -> Item:
    """A question with its id.

    >>> item = item_of("1+1?", [response_of("1+1?", "2"), response_of("1+1?", "3")])
    >>> [response.text for response in item.responses]
    ['2', '3']
    """
    name = item_id(prompt, messages, [one.id for one in responses])
    said = tuple(dict(one) for one in messages)
    return Item(
        id=name, prompt=prompt, responses=tuple(responses), messages=said, columns=dict(columns or {})
    )


def one_time_id() -> str:
    """A new id that nobody can guess, for one answer or event: sent twice, it counts once.

    >>> one_time_id() == one_time_id()
    False
    """
    return secrets.token_hex(16)


def now() -> str:
    """The time as records have it: UTC, ISO 8601, to the microsecond.

    >>> now().endswith("+00:00")
    True
    """
    return datetime.now(UTC).isoformat(timespec="microseconds")
