"""Calls in daemon threads: torch is there as it was, results keep their order, errors come back."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch

from feedtune.contracts import Sample
from feedtune.profiling import Stopwatch, timed, timing
from feedtune.rewards import LateError, RewardCalls, guarded, in_threads, score_samples, within


def torch_here() -> dict[str, Any]:
    """All that torch keeps for each thread, as far as it can be seen, and what that does to numbers."""
    left = torch.full((8, 8), 1 / 3)
    return {
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "dtype": torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None,
        "product": (left @ left).dtype,
        "tracks": (torch.ones(1, requires_grad=True) * 2).requires_grad,
        "threads": torch.get_num_threads(),
    }


@pytest.mark.parametrize(
    "context",
    [
        nullcontext(),
        torch.no_grad(),
        torch.inference_mode(),
        torch.autocast("cpu", dtype=torch.bfloat16),
        torch.autocast("cpu", dtype=torch.float16, cache_enabled=False),
    ],
    ids=["plain", "no_grad", "inference_mode", "bfloat16", "float16"],
)
def test_torch_is_in_the_thread_what_it_is_outside(context: AbstractContextManager[Any]) -> None:
    with context:
        assert within(30.0, torch_here) == torch_here()


def test_the_number_of_threads_that_compute_is_the_same() -> None:
    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert within(30.0, torch.get_num_threads) == count
    finally:
        torch.set_num_threads(before)


def test_draws_come_from_the_one_global_stream() -> None:
    torch.manual_seed(3)
    expected = [torch.rand(2), torch.rand(2), torch.rand(2)]
    torch.manual_seed(3)
    found = [torch.rand(2), within(30.0, lambda: torch.rand(2)), torch.rand(2)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_without_a_limit_it_is_called_here() -> None:
    assert within(None, threading.current_thread) is threading.current_thread()
    other = within(30.0, threading.current_thread)
    assert other is not threading.current_thread()
    assert other.daemon


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_what_it_raises_is_raised_here(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        within(30.0, fail)
    assert caught.value is error


def test_none_is_a_result_like_any_other() -> None:
    assert within(30.0, lambda: None) is None


def test_who_is_late_is_named() -> None:
    over = threading.Event()
    with pytest.raises(LateError) as caught:
        within(0.02, over.wait)
    assert caught.value.thread.is_alive()
    over.set()
    caught.value.thread.join(timeout=5)
    assert not caught.value.thread.is_alive()


def test_the_clock_of_the_reward_runs_in_the_calling_thread() -> None:
    """Also what a source marks itself: in another thread it would stop the run's own part."""

    @timed("sampling")
    def slow(samples: Any) -> list[float]:
        time.sleep(0.05)
        return [1.0 for _ in samples]

    watch = Stopwatch()
    with timing(watch):
        score_samples(guarded(slow, RewardCalls(timeout=30.0)), [Sample("Hi", "Ho")])
    seconds = watch.lap().seconds
    assert seconds["reward"] >= 0.05
    assert seconds["sampling"] == 0.0


# Several at once


def test_results_have_the_order_of_the_items_whoever_is_first() -> None:
    def wait(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    items = [0.06, 0.0, 0.03, 0.0]
    assert in_threads(wait, items, threads=4) == items


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_no_more_threads_than_asked_for(threads: int) -> None:
    lock, running, seen = threading.Lock(), [0], [0]

    def work(item: int) -> int:
        with lock:
            running[0] += 1
            seen[0] = max(seen[0], running[0])
        time.sleep(0.01)
        with lock:
            running[0] -= 1
        return item

    assert in_threads(work, list(range(6)), threads) == list(range(6))
    assert seen[0] <= threads


def test_as_many_as_asked_for_work_at_once() -> None:
    all_here = threading.Barrier(3, timeout=30)  # opens when three are in it, or raises

    def work(item: int) -> int:
        all_here.wait()
        return item

    assert in_threads(work, [0, 1, 2], threads=3) == [0, 1, 2]


def test_the_first_items_error_is_raised_and_nothing_further_is_begun() -> None:
    begun: list[int] = []
    both_here = threading.Barrier(2, timeout=30)

    def work(item: int) -> int:
        begun.append(item)
        both_here.wait()
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        in_threads(work, list(range(20)), threads=2)
    assert sorted(begun) == [0, 1]


def test_nothing_to_do_needs_no_threads() -> None:
    assert in_threads(lambda item: item, [], threads=4) == []
