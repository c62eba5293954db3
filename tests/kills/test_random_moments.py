"""Killed from outside at random moments of a longer run, several times in a row."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kills.cases import LONGER, Case
from kills.nursery import Nursery
from kills.stories import Story, live

IN_A_ROW = 4
"""Deaths of one run at most; then it is left to end."""


def _kill_at_random(nursery: Nursery, case: Case, folder: Path, moments: int, seed: int) -> list[Story]:
    """As many runs as it takes to be killed so often; each ends as the one that nobody killed."""
    draw = random.Random(seed)
    whole = live(nursery, case, folder / "whole")
    expected, seconds = whole.ending(), whole.chapters[0].life.seconds
    stories: list[Story] = []
    while sum(story.kills for story in stories) < moments:
        # A life is as long as the whole run at most, and two thirds of it on the average.
        kills = [{"after": draw.uniform(0.3, 1.0) * seconds} for _ in range(IN_A_ROW)]
        story = live(nursery, case, folder / f"killed{len(stories)}", kills, like=whole)
        assert story.ending() == expected, f"seed {seed}, story {len(stories)}: {kills}"
        stories.append(story)
        assert len(stories) < 10 * moments, "none of them was ever killed"
    assert (
        sum(story.resumes for story in stories) >= moments / 4
    )  # the others died before their training began
    for story in stories:  # the last life of a resumed run did only what was left to do
        assert not story.chapters[-1].began or len(story.chapters[-1].batches) < whole.batches
    return stories


def test_killed_at_random_moments(nursery: Nursery, tmp_path: Path) -> None:
    _kill_at_random(nursery, LONGER["ppo"], tmp_path, moments=3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", LONGER)
def test_killed_at_twenty_random_moments(nursery: Nursery, tmp_path: Path, name: str) -> None:
    stories = _kill_at_random(nursery, LONGER[name], tmp_path, moments=20, seed=2)
    assert sum(story.kills for story in stories) >= 20
    assert any(story.kills >= 2 for story in stories)  # in a row
