"""A policy in service: it answers, simulated users see what it says and click, and all of that is logged."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from feedtune.contracts import Row
from feedtune.errors import UserError, nearest
from feedtune.feedback.events.clicks import ClickOptions
from feedtune.feedback.events.showings import SHOWN
from feedtune.feedback.ids import content_id, item_of, response_of
from feedtune.feedback.records import Event, Item
from feedtune.policy import Policy
from feedtune.randomness import generator_for
from feedtune.sampling import sample
from feedtune.text.codec import Codec

ROWS_AT_ONCE = 256
OPENING = datetime(2000, 1, 1, tzinfo=UTC)  # simulated users live by a clock of their own: a showing a minute
LOOKING = timedelta(seconds=2)  # at each place, before a click on it


@dataclass(frozen=True, kw_only=True)
class Log:
    """What was shown and what came of it."""

    items: list[Item]
    events: list[Event]
    shown: int
    unended: int  # responses that were cut, and not shown: their texts have another probability than they


def serve(
    policy: Policy,
    codec: Codec,
    rows: Sequence[Row],
    options: ClickOptions,
    *,
    max_new_tokens: int,
    seed: int = 0,
    run: str | None = None,
    checkpoint: str | None = None,
) -> Log:
    """Let a policy answer prompts, one after another and then from the first again, and log the clicks.

    Responses are drawn from the policy's own distribution; `shown` has their probability as propensity. The
    same arguments give the same log, ids too, so that logging it twice counts nothing twice.

    Args:
        policy: in evaluation mode.
        codec: its own.
        rows: with the grade of each document in a column.
        options: users and number of showings.
        max_new_tokens: longest response in tokens; longer ones are not shown.
        seed: of responses and clicks.
        run: name of the policy, for the items.
        checkpoint: hash of its weights, for the items.

    Raises:
        UserError: a row has no grades.
    """
    count = len(rows) if options.showings is None else options.showings
    if count < 1:
        raise UserError(f"clicks.showings: expected at least 1, or null for one a prompt, got {count}")
    asked = [rows[number % len(rows)] for number in range(count)]
    grades = [_grades(row, options.column) for row in asked]
    users, luck, words = options.users(), random.Random(seed), generator_for(seed, 0)
    items: dict[str, Item] = {}
    events: list[Event] = []
    unended = 0
    for start in range(0, count, ROWS_AT_ONCE):
        prompts = codec.prompts(asked[start : start + ROWS_AT_ONCE])
        said = sample(
            policy,
            [prompt.tokens for prompt in prompts],
            max_new_tokens=max_new_tokens,
            eos_ids=codec.eos_ids,
            generator=words,
            stopped=codec.stopped if codec.stop else None,
        )
        for number, (prompt, one) in enumerate(zip(prompts, said, strict=True), start):
            if not one.ended:
                unended += 1
                continue
            response = response_of(prompt.text, codec.response(one.tokens), run=run, checkpoint=checkpoint)
            item = item_of(prompt.text, [response], messages=prompt.messages)
            items[item.id] = item
            places = users.clicked(response.text, grades[number], luck)
            likely = math.exp(math.fsum(one.logp))
            events += _events(response.id, places, likely, number, (seed, run, checkpoint))
    return Log(items=list(items.values()), events=events, shown=count - unended, unended=unended)


def _events(response: str, places: Sequence[int], likely: float, number: int, who: Any) -> list[Event]:
    """One showing and its clicks."""
    began = OPENING + timedelta(minutes=number)

    def event(kind: str, place: int | None, time: datetime, propensity: float | None = None) -> Event:
        name = content_id("simulated", response, kind, place, number, who)
        return Event(
            id=name,
            response=response,
            kind=kind,
            position=place,
            propensity=propensity,
            time=time.isoformat(),
        )

    clicks = [event("click", place, began + place * LOOKING) for place in places]
    return [event(SHOWN, None, began, min(1.0, likely)), *clicks]


def _grades(row: Row, column: str) -> Mapping[str, float]:
    found = row.get(column)
    if not isinstance(found, Mapping):
        hint = nearest(column, map(str, row))
        raise UserError(
            f"clicks.column: rows need the grade of each document in '{column}', as {{music: 2, food: 0}}; "
            f"a row has {', '.join(map(str, row))}.{hint}"
        )
    return found
