"""Feedback as JSON lines for other programs: preferences and ratings in the columns that TRL has for them.

Beside those columns every row has what makes it come back identical: who said it, when, the ids, all
responses of the item, and the task's columns as one JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feedtune.errors import UserError, nearest
from feedtune.feedback.exchange.lines import write_lines
from feedtune.feedback.records import Answer, Event, Item, Response
from feedtune.feedback.storage.store import FeedbackStore

FILES = {
    "comparisons": "decided: prompt, chosen, rejected",
    "undecided": "ties, both bad, skipped: prompt, response_a, response_b, choice",
    "ratings": "prompt, completion, rating",
    "edits": "prompt, completion, reference: what a rater would have said in its place",
    "comments": "prompt, completion, comment",
    "unanswered": "items that nobody has answered: prompt, responses",
    "events": "what happened to responses: response, kind, value, time",
}
"""What an export consists of: each a file of JSON lines."""

VALUES = {"rating": "rating", "edit": "reference", "comment": "comment"}
"""The column that holds the value of an answer about one response, by kind."""

Row = dict[str, Any]


def answer_row(answer: Answer, item: Item) -> Row:
    """An answer with all that it is about.

    >>> from feedtune.feedback import item_of, response_of
    >>> item = item_of("1+1?", [response_of("1+1?", "3"), response_of("1+1?", "2")])
    >>> ids = tuple(one.id for one in item.responses)
    >>> said = Answer(id="1", item=item.id, kind="comparison", responses=ids, value="b", rater="r", time="")
    >>> [answer_row(said, item)[column] for column in ("prompt", "chosen", "rejected")]
    ['1+1?', '2', '3']
    """
    shown = _shown(answer, item)
    row = _asked(item)
    if answer.kind == "comparison":
        row |= _compared(answer, shown, item)
    else:
        [one] = shown
        row |= {"completion": _said(one, item), VALUES[answer.kind]: answer.value, "run": one.run}
    row |= {"rater": answer.rater, "by": answer.by, "time": answer.time, "tags": list(answer.tags)}
    return {**row, "id": answer.id, "shown": list(answer.responses), **_rest(item)}


def item_row(item: Item) -> Row:
    """An item that nobody has answered."""
    return {**_asked(item), **_rest(item)}


def event_row(event: Event) -> Row:
    """An event, as `feedtune feedback log` takes it."""
    row = {
        "id": event.id,
        "response": event.response,
        "kind": event.kind,
        "value": event.value,
        "position": event.position,
        "propensity": event.propensity,
        "time": event.time,
    }
    return {name: value for name, value in row.items() if value is not None}


def file_of(answer: Answer) -> str:
    """Which of `FILES` an answer belongs to."""
    if answer.kind == "comparison":
        return "comparisons" if answer.value in ("a", "b") else "undecided"
    return f"{answer.kind}s"


def exported(
    store: FeedbackStore, only: Sequence[str] = tuple(FILES), rater: str | None = None
) -> dict[str, list[Row]]:
    """The rows of each file.

    Args:
        store: what is exported.
        only: of `FILES`.
        rater: only what this one has said; no unanswered items and no events.

    Raises:
        UserError: there is no such file.
    """
    for name in only:
        if name not in FILES:
            raise UserError(f"expected some of {', '.join(FILES)}, got '{name}'.{nearest(name, FILES)}")
    everybody = store.answers()
    items = {item.id: item for item in store.items()}  # later: others may be adding both
    found: dict[str, list[Row]] = {name: [] for name in FILES}
    for answer in everybody:
        if rater in (None, answer.rater):
            found[file_of(answer)].append(answer_row(answer, items[answer.item]))
    if rater is None:
        answered = {answer.item for answer in everybody}
        found["unanswered"] = [item_row(item) for name, item in items.items() if name not in answered]
        found["events"] = [event_row(event) for event in store.events()]
    return {name: rows for name, rows in found.items() if name in only}


def write_export(rows: dict[str, list[Row]], out: Path) -> dict[Path, int]:
    """Write each file that has rows into a folder; returns how many rows each has.

    Where there are both plain prompts and conversations, these have files of their own, `chat_NAME.jsonl`:
    in a table a column has one type. (datasets 5.2 would turn the plain text "2" into a number.)
    """
    files = {out / f"{name}.jsonl": some for name, some in rows.items()}
    if has_both_forms(rows):
        files = {out / f"{name}.jsonl": _of_form(some, False) for name, some in rows.items()}
        files |= {out / f"chat_{name}.jsonl": _of_form(some, True) for name, some in rows.items()}
    return {path: write_lines(path, some) for path, some in files.items() if some}


def has_both_forms(rows: dict[str, list[Row]]) -> bool:
    """Whether some prompts are plain texts and others conversations."""
    asked = [row for some in rows.values() for row in some if "prompt" in row]
    return any(map(_is_chat, asked)) and not all(map(_is_chat, asked))


def _is_chat(row: Row) -> bool:
    return isinstance(row.get("prompt"), list)


def _of_form(rows: Sequence[Row], chat: bool) -> list[Row]:
    return [row for row in rows if _is_chat(row) == chat]


def _asked(item: Item) -> Row:
    """The prompt: text, or the messages of a conversation, beside which its text stands."""
    if not item.messages:
        return {"prompt": item.prompt}
    return {"prompt": [dict(one) for one in item.messages], "prompt_text": item.prompt}


def _said(response: Response, item: Item) -> Any:
    return [{"role": "assistant", "content": response.text}] if item.messages else response.text


def _shown(answer: Answer, item: Item) -> list[Response]:
    by_id = {one.id: one for one in item.responses}
    return [by_id[name] for name in answer.responses]


def _compared(answer: Answer, shown: Sequence[Response], item: Item) -> Row:
    if answer.value not in ("a", "b"):
        a, b = shown
        row = {"response_a": _said(a, item), "response_b": _said(b, item), "choice": answer.value}
        return {**row, "run_a": a.run, "run_b": b.run}
    chosen, rejected = shown if answer.value == "a" else shown[::-1]
    row = {"chosen": _said(chosen, item), "rejected": _said(rejected, item), "choice": answer.value}
    return {**row, "chosen_run": chosen.run, "rejected_run": rejected.run}


def _rest(item: Item) -> Row:
    """The item itself; its columns as one text, since tables want the same columns in every row."""
    responses = [
        {"id": one.id, "text": one.text, "run": one.run, "checkpoint": one.checkpoint}
        for one in item.responses
    ]
    return {"item": item.id, "responses": responses, "columns": json.dumps(dict(item.columns))}
