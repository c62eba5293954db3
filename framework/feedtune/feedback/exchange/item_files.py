"""Files of prompts and responses to ask about: one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from feedtune.errors import UserError
from feedtune.feedback.checking import check_item
from feedtune.feedback.exchange.lines import read_lines
from feedtune.feedback.ids import item_of, response_of
from feedtune.feedback.records import Item, Response
from feedtune.text.conversation import form_of, messages_of, readable

SAID = ("responses", "response", "chosen", "rejected")
"""Columns with what was said to the prompt; a `reference` is not asked about."""

FIELDS = ("text", "run", "checkpoint")
"""Of a response that is an object."""


def read_items(path: str | Path) -> list[Item]:
    """The items of a file, in its order.

    A row has a `prompt` (or `messages`) and either `responses`, a list, or `response`, or `chosen` and
    `rejected`. A response is a text, or an object with `text` and, if known, `run` and `checkpoint`. The
    other columns travel along.

    Raises:
        UserError: the file cannot be read, or naming it and the line that holds no item.
    """
    items = [item_of_row(row, where) for where, row in read_lines(path)]
    if not items:
        raise UserError(f"{path}: there is no item in it")
    return items


def item_of_row(row: Mapping[str, Any], where: str = "row") -> Item:
    """The item that a row of JSON describes.

    >>> item = item_of_row({"prompt": "1+1?", "chosen": "2", "rejected": "3"})
    >>> [response.text for response in item.responses]
    ['2', '3']
    """
    if form_of(row, where) == "text":
        raise UserError(f"{where}: a 'text' asks nothing; expected 'prompt' or 'messages'")
    chat = form_of(row, where) == "messages"
    messages = [{"role": m["role"], "content": m["content"]} for m in messages_of(row, where)] if chat else []
    prompt = readable(messages) if chat else row["prompt"]
    responses = {one.id: one for one in _responses(row, prompt, where)}
    columns = {name: value for name, value in row.items() if name not in (*SAID, "messages", "prompt")}
    item = item_of(prompt, list(responses.values()), messages=messages, columns=columns)
    check_item(item, where)
    return item


def _responses(row: Mapping[str, Any], prompt: str, where: str) -> Iterator[Response]:
    given = {name: row[name] for name in SAID if row.get(name) is not None}
    if not (given.keys() == {"chosen", "rejected"} or given.keys() in ({"responses"}, {"response"})):
        found = ", ".join(f"'{name}'" for name in given) or "none of them"
        raise UserError(
            f"{where}: expected 'responses', or 'response', or 'chosen' and 'rejected'; found {found}"
        )
    said = given.get("responses", list(given.values()))
    if not isinstance(said, list):
        raise UserError(f"{where}: 'responses' must be a list, got {type(said).__name__}")
    for one in said:
        yield _response(one if isinstance(one, Mapping) else {"text": one}, prompt, where)


def _response(said: Mapping[str, Any], prompt: str, where: str) -> Response:
    for name in FIELDS:
        value = said.get(name)
        if not isinstance(value, str) and not (value is None and name != "text"):
            raise UserError(f"{where}: the {name} of a response must be text, got {value!r}")
    return response_of(prompt, said["text"], run=said.get("run"), checkpoint=said.get("checkpoint"))
