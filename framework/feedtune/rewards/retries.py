"""Trying again what failed, after a while, and more patiently each time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from feedtune.errors import missing_extra
from feedtune.rewards.failures import SourceFailure

T = TypeVar("T")

LONGEST_WAIT = 60.0
"""Seconds to which the wait before an attempt grows, unless the first wait is longer."""

MOST_PATIENCE = 600.0
"""Most seconds for which a source may ask to be left alone; one that asks for more has failed for good."""

_chance = random.SystemRandom()  # not the global generator: its place in its stream belongs to the run


def retried(
    call: Callable[[], T],
    *,
    attempts: int,
    wait: float,
    needed_by: str,
    before_retry: Callable[[], None] = lambda: None,
) -> T:
    """What `call` returns, tried again after each `SourceFailure`; the last one is raised.

    Args:
        call: one attempt.
        attempts: most attempts, at least 1. Above 1 the package tenacity is needed.
        wait: seconds before the second attempt; see `pause`.
        needed_by: key that asks for more attempts, for the error where tenacity is missing.
        before_retry: called before each wait.

    >>> retried(lambda: "done", attempts=1, wait=1.0, needed_by="doctest")
    'done'
    """
    if attempts == 1:
        return call()
    check_tenacity(needed_by)
    import tenacity

    def wait_after(state: tenacity.RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.retry_after if isinstance(failure, SourceFailure) else 0.0
        return pause(state.attempt_number, wait, asked)

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(attempts),
        retry=tenacity.retry_if_exception(_may_pass),
        wait=wait_after,
        before_sleep=lambda state: before_retry(),
        reraise=True,
    )
    return retrying(call)


def check_tenacity(needed_by: str) -> None:
    """Raise a `UserError` if tenacity is not installed: at a run's start, not at its first failure."""
    try:
        import tenacity  # noqa: F401
    except ImportError as error:
        raise missing_extra("tenacity", "remote", needed_by) from error


def pause(attempt: int, wait: float, asked: float = 0.0) -> float:
    """Seconds to wait after so many attempts.

    `wait`, doubled with each further attempt up to a minute (or `wait`, if that is more), and by chance up to
    half of it on top, so that processes that failed together do not come back together; and at least as long
    as was asked for.

    >>> 1.0 <= pause(1, wait=1.0) <= 1.5, 8.0 <= pause(4, wait=1.0) <= 12.0, pause(1, wait=1.0, asked=30.0)
    (True, True, 30.0)
    """
    doubled = wait * 2.0 ** min(attempt - 1, 30)
    return max(min(doubled, max(wait, LONGEST_WAIT)) * _chance.uniform(1.0, 1.5), asked)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, SourceFailure) and error.retry_after <= MOST_PATIENCE


# Sources that try again by themselves say so, for the count of retries among the metrics.

_noted: ContextVar[list[None] | None] = ContextVar("feedtune_retries", default=None)


@contextmanager
def noting_retries(noted: list[None]) -> Iterator[None]:
    """Inside of the block, in this thread, each retry that a source notes is put into this list."""
    token = _noted.set(noted)
    try:
        yield
    finally:
        _noted.reset(token)


def note_retry() -> Callable[[], None]:
    """What a source with retries of its own calls at each; to be asked for in the thread that calls it.

    >>> with noting_retries(noted := []):
    ...     note = note_retry()
    >>> note()
    >>> len(noted)
    1
    """
    noted = _noted.get()

    def note() -> None:
        if noted is not None:
            noted.append(None)

    return note
