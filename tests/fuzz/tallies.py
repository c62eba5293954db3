"""Trying many cases of a kind, and keeping count of what came of them."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

CPU_SECONDS = 60
"""A case that computes for longer hangs: each is meant to take a second."""


class WrongError(Exception):
    """A case ended in none of the ways in which it may."""


class HangError(BaseException):
    """A case has computed for too long; no `except Exception` of the code under test takes it."""


@dataclass
class Tally:
    """What came of the cases of a kind."""

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[Any, str]] = field(default_factory=list)  # case, what happened

    @property
    def tried(self) -> int:
        """Cases, those that failed among them."""
        return sum(self.outcomes.values()) + len(self.failures)

    def add(self, other: Tally) -> None:
        """Take over another's counts."""
        self.outcomes.update(other.outcomes)
        self.failures += other.failures

    def line(self) -> str:
        """In one line, for people."""
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.outcomes.items()))
        return f"{self.kind}: {self.tried} tried ({counts}), failures {len(self.failures)}"


@contextmanager
def bounded() -> Iterator[None]:
    """Inside, a computation that does not end is interrupted."""

    def stop(number: int, frame: object) -> None:
        raise HangError(f"more than {CPU_SECONDS} seconds of computing")

    former = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)


def tried(trial: Callable[[Any], str], case: Any) -> tuple[str | None, str]:
    """The outcome of a case; None with what happened where it failed."""
    try:
        with bounded():
            return trial(case), ""
    except HangError as error:
        return None, f"hangs: {error}"
    except WrongError as error:
        return None, str(error)
    except Exception as error:  # whatever gets out is what is looked for
        return None, f"{type(error).__name__}: {error}"


def fuzz(
    kind: str, cases: SearchStrategy[Any], trial: Callable[[Any], str], *, examples: int, number: int
) -> Tally:
    """Try so many cases; the same number draws the same ones."""
    tally = Tally(kind)

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def one(case: Any) -> None:
        outcome, happened = tried(trial, case)
        if outcome is None:
            tally.failures.append((case, happened))
        else:
            tally.outcomes[outcome] += 1

    one()
    return tally


def smallest(case: list[str], kept: int, trial: Callable[[Any], str]) -> list[str]:
    """A failing list without the entries (after the first `kept`) that it fails without, too."""
    for index in reversed(range(kept, len(case))):
        shorter = case[:index] + case[index + 1 :]
        if tried(trial, shorter)[0] is None:
            case = shorter
    return case
