"""Events as JSON: what was said by its content or its id, ids of their own, and lines that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from feedtune.errors import UserError
from feedtune.feedback.events.reading import event_of, read_events
from feedtune.feedback.ids import response_id

SHOWN = {"kind": "shown", "prompt": "Tea?", "text": "Yes!", "propensity": 0.5, "time": "2026-01-01T12:00:00Z"}
CLICK = {"kind": "click", "prompt": "Tea?", "text": "Yes!", "position": 2, "time": "2026-01-01T12:01:00Z"}


def test_what_was_said_becomes_its_id() -> None:
    told = event_of(SHOWN)
    assert told.event.response == response_id("Tea?", "Yes!")
    assert told.event.propensity == 0.5
    assert told.item is not None
    assert (told.item.prompt, told.item.responses[0].text) == ("Tea?", "Yes!")
    click = event_of(CLICK)
    assert click.event.response == told.event.response
    assert (click.event.position, click.event.value, click.item) == (2, 1.0, None)
    of_run = event_of({**SHOWN, "run": "mine", "checkpoint": "abc"})
    assert of_run.event.response == response_id("Tea?", "Yes!", "mine", "abc")


def test_an_id_does_as_well() -> None:
    told = event_of(
        {"kind": "dwell", "response": "r 1", "value": 7.5, "time": "2026-01-01T12:01:00Z", "id": "e"}
    )
    assert (told.event.id, told.event.response, told.event.value) == ("e", "r 1", 7.5)


def test_the_same_line_is_the_same_event() -> None:
    turned = dict(reversed(CLICK.items()))
    assert event_of(CLICK).event.id == event_of(turned).event.id
    for other in ({"position": 3}, {"value": 2.0}, {"time": "2026-01-01T12:01:01Z"}, {"text": "No."}):
        assert event_of({**CLICK, **other}).event.id != event_of(CLICK).event.id


def test_conversations_are_kept() -> None:
    asked = [{"role": "user", "content": "Tea?"}]
    told = event_of({**SHOWN, "messages": asked})
    assert told.item is not None
    assert list(told.item.messages) == asked


def test_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text("\n".join([json.dumps(SHOWN), "", json.dumps(CLICK)]))
    assert [one.event.kind for one in read_events(file)] == ["shown", "click"]
    file.write_text(json.dumps({**SHOWN, "text": "one\u2028line"}, ensure_ascii=False))  # no end of a line
    assert read_events(file)[0].item is not None
    file.write_text(json.dumps(SHOWN) + "\n{")
    with pytest.raises(UserError, match=r"log\.jsonl:2: not JSON"):
        read_events(file)
    file.write_text('\n\n{"kind": "click"}')
    with pytest.raises(UserError, match=r"log\.jsonl:3: 'time' is missing"):
        read_events(file)


def without(key: str, value: dict[str, Any] = CLICK) -> dict[str, Any]:
    return {name: one for name, one in value.items() if name != key}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "event: expected an object such as .* got list"),
        ({**CLICK, "positon": 2}, r"event: there is no field 'positon'\. Did you mean 'position'\?"),
        (without("kind"), "event: 'kind' is missing"),
        (without("time"), "event: 'time' is missing"),
        (without("text"), "event: which response\\? Expected its id as 'response', or .*'text' is missing"),
        ({**CLICK, "prompt": 7}, "event: which response.*'prompt' is no text"),
        (without("prompt", without("text")), "event: which response"),
        ({**CLICK, "response": "r 1"}, "event: 'response' is the id of what was said; leave out 'prompt'"),
        ({**CLICK, "run": 7}, "event: 'run' should be text, got 7"),
        ({**CLICK, "messages": "Tea?"}, "event: 'messages' should be a list"),
        ({**CLICK, "position": 0}, "event: position: expected a whole number from 1, got 0"),
        ({**CLICK, "value": "much"}, "event: value: expected a finite number, got 'much'"),
        ({**SHOWN, "propensity": 0}, "event: propensity: expected a number above 0 and up to 1, got 0"),
        ({**SHOWN, "propensity": 1.2}, "event: propensity: .* got 1.2"),
        ({**CLICK, "time": "yesterday"}, "event: time: expected a time with its zone"),
        ({**CLICK, "time": "2026-01-01T12:00:00"}, "event: time: expected a time with its zone"),
        (
            {"kind": "click", "response": 7, "time": "2026-01-01T12:00:00Z"},
            "event: response: expected",
        ),
    ],
)
def test_what_is_no_event_is_refused(value: Any, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        event_of(value)
