"""Small stores of events, for tests of what is learnt from clicks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from feedtune.contracts import Sample
from feedtune.feedback.ids import item_of, response_of
from feedtune.feedback.records import Event, Item
from feedtune.feedback.storage.store import FeedbackStore

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Shown(NamedTuple):
    """A response that was shown, and what people did: (kind, value, position, seconds later)."""

    prompt: str
    text: str
    propensity: float | None = None
    then: Sequence[tuple[str, float, int | None, float]] = ()


def at(seconds: float) -> str:
    """A time, so many seconds after noon."""
    return (NOON + timedelta(seconds=seconds)).isoformat()


def item(shown: Shown) -> Item:
    return item_of(shown.prompt, [response_of(shown.prompt, shown.text)])


def events(shown: Sequence[Shown], every: float = 3600.0) -> list[Event]:
    """One showing after another."""
    found = []
    for number, one in enumerate(shown):
        response, began = item(one).responses[0].id, number * every
        found.append(
            Event(
                id=f"shown {number}",
                response=response,
                kind="shown",
                propensity=one.propensity,
                time=at(began),
            )
        )
        for place, (kind, value, position, later) in enumerate(one.then):
            found.append(
                Event(
                    id=f"event {number}.{place}",
                    response=response,
                    kind=kind,
                    value=value,
                    position=position,
                    time=at(began + later),
                )
            )
    return found


def store(path: Path, shown: Sequence[Shown]) -> str:
    """A store of them; returns its path."""
    made = FeedbackStore(path)
    made.add([item(one) for one in shown])
    made.log(events(shown))
    return str(path)


def clicks(*places: int) -> list[tuple[str, float, int | None, float]]:
    """Clicks on these places, some seconds after the showing."""
    return [("click", 1.0, place, 2.0 * place) for place in places]


def varied(path: Path) -> str:
    """A store in which every option of the rewards from logs makes a difference, for `VARIED`."""
    day = [
        ("click", 1.0, 2, 30.0),
        ("click", 1.0, 1, 60.0),
        ("purchase", 9.0, 1, 90.0),
        ("click", 1.0, 1, 2e5),
    ]
    shown = [
        Shown("Tea?", "Yes, please", 0.5, [day[0]]),
        Shown("Tea?", "Yes, please", 0.25, day[1:3]),
        Shown("Tea?", "No.", 0.01, day[1:]),
        Shown("Tea?", "Never again.", 0.125),
        Shown("Cake?", "Yes, please", 0.5, day[2:]),
        Shown("Cake?", "please No.", 0.5, [day[0]]),
        Shown("Pie?", "No.", 1.0, [day[1]]),
    ]
    made = FeedbackStore(path)
    made.add([item(one) for one in shown])
    made.log(events(shown, every=1e6))
    return str(path)


VARIED = tuple(
    Sample(prompt, text, columns={"relevance": {"No.": 1, "please": 2, "Yes,": 0, "Never": 1}})
    for prompt in ("Tea?", "Cake?", "Rain?")
    for text in ("Yes, please", "please Yes,", "No.", "Never again.", "Well ...", "", "please Never No. Yes,")
)
