"""Killed while files are written: before each touch of one, and with each file half on the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kills.cases import Case
from kills.layout import left_over
from kills.nursery import Nursery
from kills.stories import live

CASE = Case("lstm", "ppo", ("trainer.max_epochs=3", "buffer.passes=1", "checkpoint.keep=1"))
"""Two steps an epoch, six in all; each checkpoint removes the one before."""


@pytest.fixture(scope="module")
def events(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every touch of a file while an uninterrupted run trains."""
    folder = tmp_path_factory.mktemp("events")
    life = nursery.run(*CASE.arguments(folder), log=folder / "log.txt", events=folder / "events.json")
    assert life.code == 0, life.said()
    found: list[dict[str, Any]] = json.loads((folder / "events.json").read_text())
    return found


@pytest.fixture(scope="module")
def ending(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How a run ends that nobody killed."""
    return live(nursery, CASE, tmp_path_factory.mktemp("whole")).ending()


def test_the_events_are_those_of_writing(events: list[dict[str, Any]]) -> None:
    """So that the tests below kill where they say: each state is flushed, then its folder, then renamed."""
    of_a_step = [event for event in events if event["step"] == 3 and event["path"].startswith("checkpoints")]
    whats = [event["what"] for event in of_a_step]
    assert whats.index("open") < whats.index("fsync") < whats.index("fsync folder") < whats.index("os.rename")
    assert "os.remove" in whats  # the checkpoint before
    assert any(event["path"].endswith("state.ckpt") for event in of_a_step if event["what"] == "fsync")
    assert {"metrics.csv", "samples.jsonl"} <= {
        Path(event["path"]).name.removeprefix(".partial-") for event in events
    }


def _check(
    nursery: Nursery, folder: Path, events: list[dict[str, Any]], ending: dict[str, Any], chosen: list[int]
) -> int:
    """Killed before each of these events; how often there was something to go on from."""
    resumes = 0
    for number in chosen:
        where = f"killed before {events[number]}"
        story = live(nursery, CASE, folder / f"event{number}", [{"event": number}])
        assert story.kills == 1, where
        assert story.ending() == ending, where
        assert left_over(story.folder / "run") == [], where
        resumes += story.resumes
    return resumes


def test_killed_before_a_file_is_touched(
    nursery: Nursery, tmp_path: Path, events: list[dict[str, Any]], ending: dict[str, Any]
) -> None:
    """At an epoch's end: metrics.csv, samples.jsonl, the checkpoint, and the removal of the one before."""
    chosen = [
        number
        for number, event in enumerate(events)
        if event["step"] == 2 and "tokenizer" not in event["path"] and event["what"] != "os.mkdir"
    ]
    assert len(chosen) >= 16
    chosen = chosen[::4]  # the others: see below
    assert _check(nursery, tmp_path, events, ending, chosen) == len(chosen)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_killed_before_each_touch_of_a_file(
    nursery: Nursery, tmp_path: Path, events: list[dict[str, Any]], ending: dict[str, Any], step: int
) -> None:
    """All of them; those of the first checkpoint, too, before which there is nothing to go on from."""
    chosen = [number for number, event in enumerate(events) if event["step"] == step]
    resumes = _check(nursery, tmp_path, events, ending, chosen)
    assert resumes == len(chosen) if step > 1 else 0 < resumes < len(chosen)


def test_killed_with_a_file_half_on_the_disk(
    nursery: Nursery, tmp_path: Path, events: list[dict[str, Any]], ending: dict[str, Any]
) -> None:
    """Each file that is flushed in the second step, cut to half of it in the moment of death."""
    names = ("state.ckpt", "manifest.json", ".partial-metrics.csv", "samples.jsonl")
    synced = {
        Path(event["path"]).name: n
        for n, event in enumerate(events)
        if event["what"] == "fsync" and event["step"] == 2
    }
    chosen = [synced[name] for name in names]
    for number in chosen:
        story = live(nursery, CASE, tmp_path / f"torn{number}", [{"event": number, "torn": True}])
        assert story.resumes == 1, events[number]
        assert story.ending() == ending, events[number]
