"""Events joined to the responses that they are about: each showing with what came of it, however late."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from feedtune.errors import UserError
from feedtune.feedback.checking import seconds
from feedtune.feedback.records import Event, Item

SHOWN = "shown"
"""The kind of the event that says that a response was shown; all others happen to one that was."""


@dataclass(frozen=True, kw_only=True)
class Showing:
    """A response that was shown once, and what happened to it then."""

    prompt: str
    text: str
    messages: tuple[Mapping[str, str], ...] = ()  # the conversation before the response, if it is one
    time: float  # seconds since 1970
    propensity: float | None  # with which it was said
    events: tuple[Event, ...]  # by time

    def earned(self, weights: Mapping[str, float]) -> float:
        """The sum of the events' values, times the weight of their kinds; kinds without one count nothing."""
        return sum(weights[one.kind] * one.value for one in self.events if one.kind in weights)


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Showings, and how many events found none."""

    showings: list[Showing]  # by time
    unknown: int  # events, showings too, of responses that no item has
    unshown: int  # of responses that had not been shown yet
    late: int  # later than the window after the showing
    young: int  # showings whose window had not passed when the log ended


def join(items: Iterable[Item], events: Iterable[Event], window: float | None = None) -> Joined:
    """Give each event to the latest showing of its response before it; the order of the events is no matter.

    Args:
        items: that hold the responses, by whose ids events name them.
        events: `shown` and others. One whose id has come before is the same again.
        window: seconds after a showing in which events count. A showing younger than that, by the log's
            newest event, is left out: what it will earn is not known yet. None: all count.

    >>> from feedtune.feedback.ids import item_of, response_of
    >>> item = item_of("Tea?", [response_of("Tea?", "Yes!")])
    >>> times = {"shown": "2026-01-01T12:00:00Z", "click": "2026-01-01T12:05:00Z"}
    >>> response = item.responses[0].id
    >>> events = [Event(id=kind, response=response, kind=kind, time=time) for kind, time in times.items()]
    >>> [showing.earned({"click": 1.0}) for showing in join([item], events).showings]
    [1.0]
    >>> join([item], events, window=60).late
    1
    """
    said = {response.id: (item, response.text) for item in items for response in item.responses}
    timed = sorted(
        ((seconds(one.time, f"event {one.id}: time"), one) for one in {e.id: e for e in events}.values()),
        key=lambda pair: (pair[0], pair[1].kind != SHOWN, pair[1].id),
    )
    known = [(time, one) for time, one in timed if one.response in said]
    shown: dict[str, list[tuple[float, Event]]] = defaultdict(list)
    for time, one in known:
        if one.kind == SHOWN:
            shown[one.response].append((time, one))
    caused, unshown, late = _caused(known, shown, window)
    end = timed[-1][0] if timed else 0.0
    ripe = [
        Showing(
            prompt=said[one.response][0].prompt,
            text=said[one.response][1],
            messages=said[one.response][0].messages,
            time=time,
            propensity=one.propensity,
            events=tuple(caused[one.id]),
        )
        for time, one in known
        if one.kind == SHOWN and (window is None or time + window <= end)
    ]
    young = sum(map(len, shown.values())) - len(ripe)
    return Joined(showings=ripe, unknown=len(timed) - len(known), unshown=unshown, late=late, young=young)


def _caused(
    known: Sequence[tuple[float, Event]],
    shown: Mapping[str, Sequence[tuple[float, Event]]],
    window: float | None,
) -> tuple[dict[str, list[Event]], int, int]:
    """Events by the id of the showing that they came of; how many came before any, and too late."""
    caused: dict[str, list[Event]] = defaultdict(list)
    unshown = late = 0
    for time, one in known:
        if one.kind == SHOWN:
            continue
        showings = shown.get(one.response, ())
        place = bisect_right(showings, time, key=lambda pair: pair[0])
        if not place:
            unshown += 1
        elif window is not None and time > showings[place - 1][0] + window:
            late += 1
        else:
            caused[showings[place - 1][1].id].append(one)
    return caused, unshown, late


def check_weights(key: str, weights: Mapping[str, float]) -> None:
    """Refuse weights under which nothing would ever be earned.

    Raises:
        UserError: naming `key`.
    """
    if not any(weights.values()):
        raise UserError(f"{key}: expected kinds of events with what each is worth, as {{click: 1.0}}")
    if SHOWN in weights:
        raise UserError(f"{key}.{SHOWN}: being shown earns nothing; name what people do then, such as click")
