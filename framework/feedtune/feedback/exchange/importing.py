"""Feedback from JSON lines: our own exports, and preferences and ratings that others have collected."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feedtune.config.types import fits
from feedtune.errors import UserError
from feedtune.feedback.asking.questions import USED, Question, kind_of, read_question, value_of
from feedtune.feedback.checking import check_answer, check_item
from feedtune.feedback.events.reading import event_of
from feedtune.feedback.exchange.exporting import Row, answer_row, item_row
from feedtune.feedback.exchange.lines import read_lines
from feedtune.feedback.ids import content_id, item_of, now, response_of
from feedtune.feedback.records import Answer, Event, Item
from feedtune.feedback.storage.store import FeedbackStore
from feedtune.json_lines import Line

RATER = "imported"
"""The pseudonym for rows that name no rater."""

ITEM = {"item": str, "responses": list[dict[str, Any]], "columns": str}
ANSWER = {"id": str, "rater": str, "by": str, "time": str, "tags": list[str], "shown": list[str]}
RESPONSE = {"id": str, "text": str, "run": str | None, "checkpoint": str | None}
"""Columns of our own, beside those that other programs know, and their types."""


@dataclass
class Imported:
    """What files held."""

    items: list[Item] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def put(self, store: FeedbackStore) -> tuple[int, int, int]:
        """Take all of it in; returns how many items, answers and events are new."""
        return store.add(self.items), store.answer_all(self.answers), store.log(self.events)


def read_files(paths: Iterable[Path]) -> Imported:
    """What files of JSON lines hold; of a folder, its `.jsonl` files.

    A row is an answer by its columns: `chosen` and `rejected`; `response_a`, `response_b` and `choice`;
    `completion` with a `rating`, a `reference` (an edit) or a `comment`; else an event by its `kind`, or an
    item by its responses.

    Raises:
        UserError: naming the file and the line: it is none of these, or wrong in itself.
    """
    found = Imported()
    for path in paths:
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path}: the folder has no file that ends in .jsonl")
        for file in files:
            for line in read_lines(file):
                _take(line, found)
    return found


def _take(line: Line, found: Imported) -> None:
    where, row = line
    if _is_event(row):
        told = event_of(row, where)
        found.events.append(told.event)
        found.items += [told.item] if told.item else []
        return
    item, answer = _as_exported(row) or _as_found(row, where)
    check_item(item, where)
    found.items.append(item)
    if answer is not None:
        check_answer(answer, item, where)
        found.answers.append(answer)


def _is_event(row: Row) -> bool:
    about = "response" in row or "text" in row
    return about and "kind" in row and "time" in row and kind_of(row) is None


def _as_exported(row: Row) -> tuple[Item, Answer | None] | None:
    """What an untouched row of an export says; None: it is none, or somebody has changed it since."""
    item = _item_in(row)
    if item is None:
        return None
    if not _has(row, ANSWER):
        return (item, None) if item_row(item) == row else None
    kind, ids = kind_of(row), {one.id for one in item.responses}
    if (
        kind is None
        or len(row["shown"]) != (2 if kind == "comparison" else 1)
        or not ids >= set(row["shown"])
    ):
        return None
    answer = Answer(
        id=row["id"],
        item=item.id,
        kind=kind,
        responses=tuple(row["shown"]),
        value=value_of(row),
        rater=row["rater"],
        by=row["by"],
        time=row["time"],
        tags=tuple(row["tags"]),
    )
    return (item, answer) if answer_row(answer, item) == row else None


def _item_in(row: Row) -> Item | None:
    """The item that a row of an export holds whole, with ids that are those of its content."""
    if not _has(row, ITEM) or not all(_has(one, RESPONSE) for one in row["responses"]):
        return None
    columns, chat = _columns_in(row), not isinstance(row.get("prompt"), str)
    prompt: Any = row.get("prompt_text" if chat else "prompt")
    messages: Any = row.get("prompt") if chat else []
    if not (isinstance(prompt, str) and columns is not None and fits(messages, list[dict[str, Any]])):
        return None
    responses = [
        response_of(prompt, one["text"], run=one["run"], checkpoint=one["checkpoint"])
        for one in row["responses"]
    ]
    item = item_of(prompt, responses, messages=messages, columns=columns)
    return item if item.id == row["item"] else None


def _as_found(row: Row, where: str) -> tuple[Item, Answer | None]:
    """What a row of others says, or one of ours that has been changed."""
    asked = read_question(row, where)
    known = {
        one["text"]: response_of(asked.prompt, one["text"], run=one["run"], checkpoint=one["checkpoint"])
        for one in _listed(row.get("responses"))
        if _has(one, RESPONSE)
    }
    responses = [
        known.get(text) or response_of(asked.prompt, text, run=run)
        for text, run in zip(asked.texts, asked.runs, strict=True)
    ]
    all_known = {one.text for one in responses} <= set(known)
    columns = {name: value for name, value in row.items() if name not in (*USED, *ITEM, *ANSWER)}
    columns |= _columns_in(row) or {}
    item = item_of(
        asked.prompt,
        list(known.values()) if all_known else list({one.id: one for one in responses}.values()),
        messages=asked.messages,
        columns=columns,
    )
    return item, None if asked.kind is None else _answered(
        row, where, asked, item, [one.id for one in responses]
    )


def _columns_in(row: Row) -> dict[str, Any] | None:
    """The item's columns, which exports have as one text; None: there is no such text."""
    try:
        columns = json.loads(row.get("columns") or "")
    except (TypeError, ValueError, RecursionError):
        return None
    return columns if isinstance(columns, dict) else None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _answered(row: Row, where: str, asked: Question, item: Item, shown: Sequence[str]) -> Answer:
    """The answer in a row; the same row again has the same id."""
    rater, time, tags = row.get("rater") or RATER, row.get("time"), row.get("tags") or []
    if not fits(tags, list[str]):
        raise UserError(f"{where}: 'tags' must be a list of texts, got {tags!r}")
    said = [repr(one) for one in (rater, asked.value, time)]  # whatever they are; they are checked later
    return Answer(
        id=content_id("imported", asked.kind, item.id, list(shown), *said),
        item=item.id,
        kind=asked.kind or "comment",
        responses=tuple(shown),
        value=asked.value,
        rater=rater,
        by=row.get("by") or "person",
        time=time or now(),
        tags=tuple(tags),
    )


def _has(row: Any, columns: Mapping[str, Any]) -> bool:
    """Whether all of these columns are there, of their types."""
    return isinstance(row, Mapping) and all(
        name in row and fits(row[name], kind) for name, kind in columns.items()
    )
