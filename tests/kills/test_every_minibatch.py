"""Killed by SIGKILL at every minibatch of a short run, and resumed: as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from kills.cases import CASES, DROPOUT, TWO_PROCESSES, Case
from kills.layout import EVERY_EPOCH
from kills.nursery import Nursery
from kills.places import BATCH, EPOCH
from kills.stories import live

MORE = {**CASES, "two processes": TWO_PROCESSES, "ppo with dropout": DROPOUT}


def _check_each_minibatch(nursery: Nursery, case: Case, folder: Path, place: str) -> None:
    """Killed once, at each minibatch: the same end, and a resume that did only what was left to do."""
    whole = live(nursery, case, folder / "whole")
    expected, total = whole.ending(), whole.batches
    assert total >= 4
    resumes = 0
    for n in range(total):
        where = f"killed where minibatch {n} of {total} {place}"
        story = live(nursery, case, folder / f"killed{n}", [{"place": place, "n": n}], like=whole)
        killed, resumed = story.chapters
        assert killed.batches == list(range(n + 1)), where
        first = resumed.batches[0] if resumed.batches else total
        assert resumed.batches == list(range(first, total)), where
        # Saved at every step: of those that had been made when the minibatch began, none is repeated.
        assert (resumed.began or 0) >= killed.step, where
        assert not killed.step or len(resumed.batches) < total, where
        assert story.ending() == expected, where
        resumes += story.resumes
    assert resumes >= total - case.steps_of  # all but those that were killed in the first step


def _check_all_in_a_row(nursery: Nursery, case: Case, folder: Path) -> None:
    """Killed at each minibatch in turn and resumed in between: the same end."""
    whole = live(nursery, case, folder / "whole")
    expected, total = whole.ending(), whole.batches
    assert total >= 4
    # Before its loss, or after its step and before that was saved.
    kills = [{"place": ("begins", "stepped")[n % 2], "n": n} for n in range(total)]
    story = live(nursery, case, folder / "killed", kills, like=whole)
    assert [chapter.batches[-1] for chapter in story.chapters] == [*range(total), total - 1]
    assert [chapter.life.killed for chapter in story.chapters] == [True] * total + [False]
    assert story.resumes >= total + 1 - case.steps_of - 1  # all but those that died in the first step
    assert story.batches < total * (total + 1) / 2  # as it would be from the beginning each time
    assert story.ending() == expected


@pytest.mark.parametrize("name", CASES)
def test_killed_at_every_minibatch(nursery: Nursery, tmp_path: Path, name: str) -> None:
    _check_all_in_a_row(nursery, CASES[name], tmp_path)


def test_two_processes_are_killed_at_every_minibatch(nursery: Nursery, tmp_path: Path) -> None:
    """Both at once, as when the machine goes."""
    _check_all_in_a_row(nursery, TWO_PROCESSES, tmp_path)


def test_killed_once_at_every_minibatch(nursery: Nursery, tmp_path: Path) -> None:
    _check_each_minibatch(nursery, CASES["ppo on lstm"], tmp_path, "begins")


@pytest.mark.slow
@pytest.mark.parametrize("place", BATCH)
@pytest.mark.parametrize("name", MORE)
def test_killed_once_at_every_place_of_every_minibatch(
    nursery: Nursery, tmp_path: Path, name: str, place: str
) -> None:
    """Among them the last minibatch of an epoch, whose end, and its row, are still to come."""
    _check_each_minibatch(nursery, MORE[name], tmp_path, place)


def test_work_that_was_lost_is_done_again(nursery: Nursery, tmp_path: Path) -> None:
    """Saved once an epoch: what came after is repeated, and stands in metrics.csv and samples.jsonl once."""
    case = Case("lstm", "ppo", ("trainer.max_epochs=3",), saved=EVERY_EPOCH)
    whole = live(nursery, case, tmp_path / "whole")
    expected, epoch = whole.ending(), whole.batches // 3
    for place in ("rows", "closed", "stepped"):
        n = 1 if place in EPOCH else 2 * epoch - 1  # the second epoch, or its last minibatch
        story = live(nursery, case, tmp_path / place, [{"place": place, "n": n}], like=whole)
        assert story.resumes == 1, place
        assert story.batches - whole.batches == (0 if place == "closed" else epoch), place
        assert story.ending() == expected, place
