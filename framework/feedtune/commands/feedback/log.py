"""`feedtune feedback log DIR FILE.jsonl`: take in events, such as clicks, that happened to responses.

A line is an object: {"kind": "shown", "prompt": "Tea?", "text": "Yes!", "propensity": 0.2, "time":
"2026-01-31T12:00:00Z"} for a response that was shown, {"kind": "click", "response": ID, "position": 2, ...}
or the same with prompt and text for what came of it. A known event, by its id or else by all it says, is
taken once.
"""

from __future__ import annotations

from collections.abc import Sequence

from feedtune.commands.feedback.settings import opened
from feedtune.feedback.events.reading import read_events
from feedtune.text.visible import plain


def main(arguments: Sequence[str]) -> int:
    """Keep the events, and say how many are new."""
    given = opened(
        "log",
        __doc__,
        arguments,
        {"file": "events as JSON lines, or - for standard input"},
        must_exist=False,
        runs=False,
    )
    file = given.words.file
    told = read_events("/dev/stdin" if file == "-" else file)
    items = given.store.add({one.item.id: one.item for one in told if one.item is not None}.values())
    new = given.store.log(one.event for one in told)
    known = {response.id for item in given.store.items() for response in item.responses}
    strange = sum(one.event.response not in known for one in told)
    print(f"{new} new events, {len(told) - new} known already, {items} new responses")
    if strange:
        print(f"{strange} are of responses that the store does not know: they count once it does")
    print(plain(f"store: {given.store.path}"))
    return 0
