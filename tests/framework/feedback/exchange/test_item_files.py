"""Files of prompts and responses: every form, and mistakes by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from feedback_stores import every_kind
from feedtune.errors import UserError
from feedtune.feedback.exchange.item_files import read_items

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_form_of_a_row(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": "Hi",
            "responses": ["a", {"text": "b", "run": "ppo", "checkpoint": "abc"}, "a"],
            "n": 3,
        },
        {"prompt": "Hi", "response": "a"},
        {"prompt": "Hi", "chosen": "a", "rejected": "b", "response": None},
        {"messages": CHAT, "responses": ["a", "b"]},
        {"prompt": CHAT, "response": "a", "reference": "c"},
    ]
    many, one, pair, chat, listed = read_items(write(tmp_path, *rows))
    assert [(r.text, r.run, r.checkpoint) for r in many.responses] == [("a", None, None), ("b", "ppo", "abc")]
    assert many.columns == {"n": 3}
    assert [r.text for r in one.responses] == ["a"]
    assert [r.text for r in pair.responses] == ["a", "b"]
    assert (chat.prompt, list(chat.messages)) == ("Hi", CHAT)
    assert (listed.prompt, list(listed.messages), listed.columns) == ("Hi", CHAT, {"reference": "c"})
    assert len({item.id for item in (many, one, pair, chat, listed)}) == 5
    assert read_items(tmp_path / "items.jsonl") == [many, one, pair, chat, listed]  # the same ids again


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "Hi"}, "expected 'responses', or 'response', or 'chosen' and 'rejected'; found none"),
        ({"prompt": "Hi", "chosen": "a"}, "found 'chosen'"),
        ({"prompt": "Hi", "response": "a", "responses": ["b"]}, "found 'responses', 'response'"),
        ({"prompt": "Hi", "responses": "a"}, "'responses' must be a list, got str"),
        ({"prompt": "Hi", "responses": []}, "it has no response"),
        ({"prompt": "Hi", "responses": [3]}, "the text of a response must be text, got 3"),
        (
            {"prompt": "Hi", "responses": [{"text": "a", "run": 3}]},
            "the run of a response must be text, got 3",
        ),
        ({"text": "Once upon a time"}, "a 'text' asks nothing"),
        ({"promt": "Hi", "response": "a"}, "expected a column 'prompt'"),
        (["Hi", "a"], "expected a JSON object, got a list"),
    ],
)
def test_what_is_no_item_is_named_by_its_line(tmp_path: Path, row: Any, says: str) -> None:
    path = write(tmp_path, {"prompt": "Hi", "response": "a"}, row)
    with pytest.raises(UserError) as caught:
        read_items(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"\n\n", "no item in it"), (b"{", "items.jsonl:1: not JSON"), (b"\xff", "items.jsonl:1: not UTF-8")],
)
def test_a_file_that_holds_nothing_of_use(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "items.jsonl"
    with pytest.raises(UserError, match="cannot be read"):
        read_items(path)
    path.write_bytes(data)
    with pytest.raises(UserError, match=says):
        read_items(path)


def test_a_store_is_told_from_a_file_of_items(tmp_path: Path) -> None:
    path = every_kind(tmp_path / "feedback.sqlite").path
    with pytest.raises(UserError, match=r"feedback\.sqlite: expected JSON lines, got an SQLite file; if"):
        read_items(path)
