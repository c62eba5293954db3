"""Trying again: how often, how long in between, and what is not tried again."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from feedtune.errors import UserError
from feedtune.rewards import SourceFailure, retried
from feedtune.rewards.retries import LONGEST_WAIT, pause


def failing(*errors: BaseException) -> tuple[Callable[[], str], list[float]]:
    """Raises these in turn and then succeeds; and when it was called."""
    left, times = list(errors), list[float]()

    def call() -> str:
        times.append(time.monotonic())
        if left:
            raise left.pop(0)
        return "done"

    return call, times


def test_it_waits_longer_each_time() -> None:
    call, times = failing(*[SourceFailure("no")] * 3)
    assert retried(call, attempts=4, wait=0.04, needed_by="here") == "done"
    waits = [b - a for a, b in pairwise(times)]
    # 0.04, 0.08 and 0.16 seconds, and up to half of it more; sleeping takes a moment longer
    assert all(wait >= 0.99 * least for wait, least in zip(waits, (0.04, 0.08, 0.16), strict=True))


@pytest.mark.parametrize("attempt", [1, 2, 3, 6, 7, 40, 100_000])
def test_pauses_double_up_to_a_minute_and_differ_by_chance(attempt: int) -> None:
    expected = min(2.0 ** (attempt - 1), 60.0) if attempt < 40 else LONGEST_WAIT
    found = {pause(attempt, wait=1.0) for _ in range(50)}
    assert all(expected <= seconds <= 1.5 * expected for seconds in found)
    assert len(found) > 25


def test_a_first_wait_beyond_a_minute_does_not_shrink() -> None:
    assert all(300 <= pause(attempt, wait=300.0) <= 450 for attempt in (1, 2, 5))


def test_who_asks_to_be_left_alone_is() -> None:
    call, times = failing(SourceFailure("busy", retry_after=0.2))
    assert retried(call, attempts=2, wait=0.0, needed_by="here") == "done"
    assert times[1] - times[0] >= 0.19


def test_who_asks_for_too_long_has_failed_at_once() -> None:
    call, times = failing(SourceFailure("come back tomorrow", retry_after=86_400))
    with pytest.raises(SourceFailure, match="come back tomorrow"):
        retried(call, attempts=5, wait=0.0, needed_by="here")
    assert len(times) == 1


@pytest.mark.parametrize("error", [UserError("wrong"), ValueError("bug"), KeyboardInterrupt()])
def test_nothing_but_a_failing_source_is_tried_again(error: BaseException) -> None:
    call, times = failing(error)
    with pytest.raises(type(error)):
        retried(call, attempts=5, wait=0.0, needed_by="here")
    assert len(times) == 1


def test_each_wait_is_told_before() -> None:
    call, times = failing(*[SourceFailure("no")] * 5)
    told: list[int] = []
    with pytest.raises(SourceFailure):
        retried(call, attempts=3, wait=0.0, needed_by="here", before_retry=lambda: told.append(len(times)))
    assert told == [1, 2]
