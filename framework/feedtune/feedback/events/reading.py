"""Events as JSON says them: one object each, in lines of a file or in the body of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from feedtune.errors import UserError, nearest
from feedtune.feedback.checking import check_event, check_item
from feedtune.feedback.events.showings import SHOWN
from feedtune.feedback.exchange.lines import read_lines
from feedtune.feedback.ids import content_id, item_of, response_of
from feedtune.feedback.records import Event, Item

OWN = tuple(one.name for one in fields(Event))
SAID = ("prompt", "text", "messages", "run", "checkpoint")
"""Keys that name a response by its content, in place of `response`, its id."""


@dataclass(frozen=True)
class Told:
    """An event, and the item that it brought along."""

    event: Event
    item: Item | None = None


def event_of(value: Any, where: str = "event") -> Told:
    """An event of a JSON object.

    It has the fields of `Event`. In place of `response`, the id, it may hold what was said: `prompt` and
    `text`, with `messages`, `run` and `checkpoint` if they are known; a `shown` of that kind brings the item.
    Without an `id` it gets one of its content: the same line again is the same event.

    Raises:
        UserError: beginning with `where`.

    >>> told = event_of({"kind": "shown", "prompt": "Tea?", "text": "Yes!", "time": "2026-01-01T12:00:00Z"})
    >>> told.item.responses[0].id == told.event.response
    True
    """
    if not isinstance(value, Mapping):
        raise UserError(
            f"{where}: expected an object such as {{kind: click, ...}}, got {type(value).__name__}"
        )
    for name in value:
        if name not in (*OWN, *SAID):
            known = ", ".join((*OWN, *SAID))
            raise UserError(
                f"{where}: there is no field '{name}'.{nearest(str(name), (*OWN, *SAID))} It has: {known}"
            )
    for name in ("kind", "time"):
        if name not in value:
            raise UserError(f"{where}: '{name}' is missing")
    item = _item_of(value, where)
    response = value.get("response") if item is None else item.responses[0].id
    own = {name: value[name] for name in OWN if value.get(name) is not None}
    own |= {"response": response}
    own.setdefault("id", content_id("event", sorted((name, one) for name, one in own.items())))
    event = Event(**own)
    check_event(event, where)
    return Told(event, item if event.kind == SHOWN else None)


def _item_of(value: Mapping[str, Any], where: str) -> Item | None:
    """The response that an event speaks of by its content; None where it has the id."""
    said = [name for name in SAID if value.get(name) is not None]
    if "response" in value:
        if said:
            raise UserError(f"{where}: 'response' is the id of what was said; leave out '{said[0]}', or it")
        return None
    lacking = [name for name in ("prompt", "text") if not isinstance(value.get(name), str)]
    if lacking:
        raise UserError(
            f"{where}: which response? Expected its id as 'response', or 'prompt' and 'text'; '{lacking[0]}' "
            f"is {'no text' if lacking[0] in value else 'missing'}"
        )
    prompt, text, run, checkpoint = (value.get(name) for name in ("prompt", "text", "run", "checkpoint"))
    messages = value.get("messages") or []
    if not (isinstance(messages, list) and all(isinstance(one, Mapping) for one in messages)):
        raise UserError(f"{where}: 'messages' should be a list of objects with 'role' and 'content'")
    for name, given in (("run", run), ("checkpoint", checkpoint)):
        if not (given is None or isinstance(given, str)):
            raise UserError(f"{where}: '{name}' should be text, got {given!r}")
    assert isinstance(prompt, str)  # as the two above have found
    assert isinstance(text, str)
    item = item_of(prompt, [response_of(prompt, text, run=run, checkpoint=checkpoint)], messages=messages)
    check_item(item, where)
    return item


def read_events(path: str | Path) -> list[Told]:
    """The events of a file of JSON lines.

    Raises:
        UserError: naming the file and the line.
    """
    return [event_of(row, where) for where, row in read_lines(path)]
