"""python tests/kills/soak.py --minutes 60: runs are killed at random until the time is over.

Prints a line now and then and the figures at the end; exits with 1 if a run ended otherwise than the one that
nobody killed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kills.cases import CASES, LONGER, TWO_PROCESSES
from kills.layout import EVERY_EPOCH, EVERY_STEP
from kills.nursery import Nursery
from kills.places import BATCH, EPOCH
from kills.stories import Kill, live

ALL = {**CASES, **LONGER, "two processes": TWO_PROCESSES}


@dataclass
class Figures:
    """What has happened so far."""

    runs: int = 0
    kills: int = 0
    resumes: int = 0
    differences: int = 0

    def __str__(self) -> str:
        return f"runs={self.runs} kills={self.kills} resumes={self.resumes} differences={self.differences}"


def main() -> int:
    """Kill until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    draw, figures = random.Random(given.seed), Figures()
    print(f"seed {given.seed}, {given.minutes:g} minutes, {len(ALL)} kinds of runs", flush=True)
    until = time.monotonic() + given.minutes * 60
    with tempfile.TemporaryDirectory(prefix="feedtune-soak-") as name:
        nursery = Nursery(Path(name))
        try:
            while time.monotonic() < until:
                _round(nursery, Path(name) / "round", draw, figures)
        finally:
            nursery.close()
    print(f"{given.minutes:g} minutes: {figures}")
    return 1 if figures.differences else 0


def _round(nursery: Nursery, folder: Path, draw: random.Random, figures: Figures) -> None:
    """One run of a random kind as nobody killed it, then a few that are killed at random."""
    name = draw.choice(list(ALL))
    case = replace(ALL[name], saved=draw.choice([EVERY_STEP, EVERY_STEP, EVERY_EPOCH]))
    more = [f"seed={draw.randrange(10**6)}", f"trainer.max_epochs={draw.randint(2, 8)}"]
    whole = live(nursery, case, folder / "whole", more=more)
    expected, seconds = whole.ending(), whole.chapters[0].life.seconds
    for number in range(5):
        kills = _kills(draw, seconds, whole.batches)
        what = f"{name} {case.saved} {more} {kills}"
        figures.runs += 1
        try:
            story = live(nursery, case, folder / f"killed{number}", kills, more)
        except AssertionError as failure:
            figures.differences += 1
            print(f"FAILED: {what}: {failure}", flush=True)
            continue
        figures.kills, figures.resumes = figures.kills + story.kills, figures.resumes + story.resumes
        if story.ending() != expected:
            figures.differences += 1
            print(f"DIFFERENT: {what}", flush=True)
    print(f"{name} {case.saved} {' '.join(more)}: {figures}", flush=True)
    shutil.rmtree(folder)


def _kills(draw: random.Random, seconds: float, batches: int) -> list[Kill]:
    """Some deaths in a row: by the clock, at a minibatch or an epoch, or at the touch of a file."""
    kinds: list[Any] = [
        lambda: {"after": draw.uniform(0.1, 1.0) * seconds},
        lambda: {"place": draw.choice(BATCH), "n": draw.randrange(batches)},
        lambda: {"place": draw.choice(EPOCH), "n": draw.randrange(4)},
        lambda: {"event": draw.randrange(60), "torn": draw.random() < 0.5},
    ]
    return [draw.choice(kinds)() for _ in range(draw.randint(1, 5))]


if __name__ == "__main__":
    sys.exit(main())
