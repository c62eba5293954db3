"""A run that is killed, resumed, killed again ... until it is done, and what it did in each of its lives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kills.cases import Case
from kills.layout import fingerprint, has_checkpoint
from kills.nursery import Life, Nursery

Kill = Mapping[str, Any]
"""Where a child kills itself (`places.watch`), or {"after": seconds}."""


@dataclass
class Chapter:
    """One life of a run."""

    life: Life
    began: int | None = None  # the optimiser step that training began with; None: it was killed before
    batches: list[int] = field(default_factory=list)  # numbers of the minibatches that were begun
    step: int = 0  # the optimiser steps that were made when the last minibatch began


@dataclass
class Story:
    """All lives of a run."""

    folder: Path
    chapters: list[Chapter] = field(default_factory=list)
    refused: int = 0  # times that there was nothing to resume, so that it was trained anew

    @property
    def kills(self) -> int:
        """How often it was killed."""
        return sum(chapter.life.killed for chapter in self.chapters)

    @property
    def resumes(self) -> int:
        """How often training went on from a checkpoint, neither its beginning nor its end."""
        return sum(bool(chapter.began and chapter.batches) for chapter in self.chapters)

    @property
    def batches(self) -> int:
        """Minibatches of all lives together."""
        return sum(len(chapter.batches) for chapter in self.chapters)

    def ending(self) -> dict[str, Any]:
        """How it ended."""
        return fingerprint(self.folder / "run")


def live(
    nursery: Nursery,
    case: Case,
    folder: Path,
    kills: Iterable[Kill] = (),
    more: Sequence[str] = (),
    like: Story | None = None,
) -> Story:
    """Train a case through all these deaths until it is done.

    Args:
        nursery: makes its processes.
        case, more: the run, and further overrides.
        folder: of the story; a run that is there already is resumed.
        kills: where it dies, in each of its lives but the last.
        like: a story of the same run, whose config is taken: what `feedtune train` would compose again.
    """
    story = Story(folder)
    if like is not None:
        shutil.copytree(like.folder / "run" / ".hydra", folder / "run" / ".hydra")
    train = case.arguments(folder, *more)
    for kill in [*kills, None]:
        if not _live_once(nursery, case, story, train, kill):
            break
    return story


def _live_once(nursery: Nursery, case: Case, story: Story, train: list[str], kill: Kill | None) -> bool:
    """One life; whether it ended too early."""
    run = story.folder / "run"
    arguments = ["resume", str(run)] if (run / ".hydra" / "config.yaml").exists() else train
    life = _command(nursery, case, story, arguments, kill)
    if life.code == 2 and arguments is not train and not has_checkpoint(run):
        story.refused += 1  # killed while Hydra wrote the very config
        life = _command(nursery, case, story, train, kill)
    assert life.killed or set(life.codes) == {0}, f"{life.codes} {arguments}\n{life.said()}"
    assert kill is not None or not life.killed, f"died alone: {arguments}\n{life.said()}"
    return life.killed


def _command(nursery: Nursery, case: Case, story: Story, arguments: list[str], kill: Kill | None) -> Life:
    journal = story.folder / f"journal{len(story.chapters)}.jsonl"
    own = None if kill is None or "after" in kill else kill
    after = kill["after"] if kill is not None and "after" in kill else None
    life = nursery.run(
        *arguments, log=story.folder / "log.txt", kill=own, after=after, world=case.world, journal=journal
    )
    story.chapters.append(_read(life, journal))
    return life


def _read(life: Life, journal: Path) -> Chapter:
    chapter = Chapter(life)
    for line in journal.read_text().splitlines() if journal.exists() else ():
        note = json.loads(line)
        if note["what"] == "start":
            chapter.began = note["step"]
        else:
            chapter.batches.append(note["n"])
            chapter.step = note["step"]
    return chapter
