"""Where an epoch's time goes: a stopwatch that is always in one part of the work.

Parts are exclusive: a part inside another stops the outer one while it lasts, so that the parts of an epoch
add up to the epoch. Code that may run outside of training marks its part by `timed`, which does nothing
there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rich.table import Table

from feedtune.distributed import gather_objects

Part = Literal[
    "sampling",  # the policy says tokens
    "reward",  # reward sources; the steps of environments
    "reference",  # log-probabilities of the reference
    "prepare",  # all else of a rollout: encoding, log-probabilities, values, Algorithm.prepare
    "update",  # minibatches and optimiser steps
    "evaluation",  # evaluation.every
    "checkpoint",  # checkpoints/step-*/
    "logging",  # metrics.csv, samples.jsonl, the bar and the loggers
    "other",  # callbacks at the epoch's end that mark no part
]
PARTS: tuple[Part, ...] = get_args(Part)
ROLLOUT: tuple[Part, ...] = ("sampling", "reward", "reference", "prepare")
"""The parts of `perf/rollout_seconds`."""


@dataclass
class Lap:
    """Wall seconds by part, and tokens."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    collected: float = 0.0  # action tokens that collections brought home
    trained: float = 0.0  # action tokens of the minibatches, over all ranks

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return sum(self.seconds.values())

    def add(self, other: Lap) -> None:
        """Add another lap to this one."""
        for part, seconds in other.seconds.items():
            self.seconds[part] += seconds
        self.collected += other.collected
        self.trained += other.trained

    def speeds(self) -> dict[str, float]:
        """Tokens a second while sampling and while updating, where there were any.

        >>> lap = Lap(collected=6.0)
        >>> lap.seconds["sampling"] = 2.0
        >>> lap.speeds()
        {'sampling': 3.0}
        """
        tokens = {"sampling": self.collected, "update": self.trained}
        return {part: n / self.seconds[part] for part, n in tokens.items() if n and self.seconds[part]}

    def metrics(self, by_part: bool) -> dict[str, float]:
        """The metrics `perf/*` of an epoch, with a column for each part or without."""
        found = {
            "perf/epoch_seconds": self.total,
            "perf/rollout_seconds": sum(self.seconds[part] for part in ROLLOUT),
            "perf/update_seconds": self.seconds["update"],
            "perf/tokens_per_second": self.collected / self.total if self.total else 0.0,
        }
        if by_part:
            found |= {f"perf/epoch_seconds/{part}": seconds for part, seconds in self.seconds.items()}
            found |= {f"perf/tokens_per_second/{part}": speed for part, speed in self.speeds().items()}
        return found


class Stopwatch:
    """Counts the seconds of the part that is on.

    >>> watch = Stopwatch()
    >>> with watch.part("prepare"), watch.part("sampling"):
    ...     time.sleep(0.01)
    >>> lap = watch.lap()
    >>> lap.seconds["sampling"] >= 0.01 > lap.seconds["prepare"]
    True
    """

    def __init__(self) -> None:
        self.wait: Callable[[], object] | None = None  # until the device has done what it was given
        self.now = Lap()  # since the last lap
        self.total = Lap()  # of all laps, in this process
        self.laps = 0
        self._part: Part = "other"
        self._since = time.perf_counter()

    def start(self, part: Part) -> None:
        """Go on with this part; the seconds until now count nowhere."""
        self._part, self._since = part, time.perf_counter()

    def switch(self, part: Part) -> Part:
        """Go on with this part; returns the one that was on."""
        if self.wait is not None:
            self.wait()
        now = time.perf_counter()
        self.now.seconds[self._part] += now - self._since
        former, self._part, self._since = self._part, part, now
        return former

    @contextmanager
    def part(self, part: Part) -> Iterator[None]:
        """This part is on inside of the block, and after it the one that was on before."""
        former = self.switch(part)
        try:
            yield
        finally:
            self.switch(former)

    def lap(self) -> Lap:
        """What has been counted since the last lap, which ends here. To be called on all ranks.

        Seconds are this rank's own, tokens those of all.
        """
        self.switch(self._part)
        lap, self.now = self.now, Lap()
        lap.collected = sum(gather_objects(lap.collected))
        self.total.add(lap)
        self.laps += 1
        return lap

    def stop(self) -> None:
        """End the part that is on: what follows the last lap counts in `total` alone."""
        self.switch("other")
        self.total.add(self.now)
        self.now = Lap()

    def table(self) -> Table:
        """The parts of a mean epoch of `total`, for people; those that never were are left out."""
        epochs = f"{self.laps} epoch{'s' if self.laps != 1 else ''}"
        table = Table(title=f"where the time went, mean of {epochs}", title_justify="left")
        table.add_column("part")
        for name in ("seconds an epoch", "share", "tokens a second"):
            table.add_column(name, justify="right")
        speeds, whole = self.total.speeds(), self.total.total
        for part, seconds in self.total.seconds.items():
            if seconds:
                speed = f"{speeds[part]:,.0f}" if part in speeds else ""
                table.add_row(part, f"{seconds / self.laps:.4g}", f"{seconds / whole:.1%}", speed)
        table.add_section()
        table.add_row("epoch", f"{whole / self.laps:.4g}", "", f"{self.total.collected / whole:,.0f}")
        return table

    def state_dict(self) -> dict[str, Any]:
        """What has been counted since the last lap."""
        now = self.now
        return {"seconds": dict(now.seconds), "collected": now.collected, "trained": now.trained}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.now = Lap(**state)


_timing: ContextVar[Stopwatch | None] = ContextVar("feedtune_stopwatch", default=None)


@contextmanager
def timing(watch: Stopwatch) -> Iterator[None]:
    """Inside of the block, `timed` counts on this stopwatch; not so in threads that the block starts."""
    token = _timing.set(watch)
    try:
        yield
    finally:
        _timing.reset(token)


@contextmanager
def timed(part: Part) -> Iterator[None]:
    """Block or function (`@timed("reward")`) that belongs to this part, wherever a stopwatch runs.

    >>> watch = Stopwatch()
    >>> with timing(watch), timed("reward"):
    ...     time.sleep(0.01)
    >>> watch.lap().seconds["reward"] >= 0.01
    True
    """
    watch = _timing.get()
    if watch is None:
        yield
        return
    with watch.part(part):
        yield
