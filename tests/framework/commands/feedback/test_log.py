"""`feedtune feedback log`: files of events, doubles, unknown responses, and what is wrong with a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from feedtune.cli import main
from feedtune.feedback.events.showings import join
from feedtune.feedback.ids import response_id
from feedtune.feedback.storage.store import FeedbackStore

SHOWN = {"kind": "shown", "prompt": "Tea?", "text": "Yes!", "propensity": 0.5, "time": "2026-01-01T12:00:00Z"}
CLICK = {"kind": "click", "response": response_id("Tea?", "Yes!"), "time": "2026-01-01T12:01:00Z"}


def write(folder: Path, *lines: dict[str, Any], name: str = "events.jsonl") -> str:
    file = folder / name
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


def test_events_are_kept_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, SHOWN, CLICK)
    assert main(["feedback", "log", str(tmp_path), file]) == 0
    assert "2 new events, 0 known already, 1 new responses" in capsys.readouterr().out
    assert main(["feedback", "log", str(tmp_path), file]) == 0
    assert "0 new events, 2 known already, 0 new responses" in capsys.readouterr().out
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    [showing] = join(store.items(), store.events()).showings
    assert (showing.text, showing.propensity, showing.earned({"click": 1.0})) == ("Yes!", 0.5, 1.0)


def test_events_may_come_before_their_response(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A click from one system, the showing from another, later."""
    place = f"feedback.path={tmp_path / 'mine.sqlite'}"
    assert main(["feedback", "log", write(tmp_path, CLICK), place]) == 0
    assert "1 are of responses that the store does not know" in capsys.readouterr().out
    assert main(["feedback", "log", write(tmp_path, SHOWN, name="more.jsonl"), place]) == 0
    assert "does not know" not in capsys.readouterr().out
    store = FeedbackStore(tmp_path / "mine.sqlite")
    assert [len(one.events) for one in join(store.items(), store.events()).showings] == [1]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"kind": "click"}\n', r"events.jsonl:1: 'time' is missing"),
        (b"\n{\n", r"events.jsonl:2: not JSON"),
        (b'{"kind": "\xff"}\n', r"events.jsonl:1: not UTF-8 (byte 0xff)"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_kept(
    content: bytes, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(json.dumps(SHOWN).encode() + b"\n" + content)
    assert main(["feedback", "log", str(tmp_path), str(file)]) == 2
    said = capsys.readouterr().err
    line = int(problem.partition(":")[2].partition(":")[0])
    assert problem.replace(f":{line}:", f":{line + 1}:") in said
    assert not (tmp_path / "feedback.sqlite").exists()


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["feedback", "log", str(tmp_path), str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl: cannot be read: No such file or directory" in capsys.readouterr().err
