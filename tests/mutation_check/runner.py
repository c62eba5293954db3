"""Runs the tests against each mutant, in forks of one process that has collected them.

Nothing is imported or collected twice: a fork puts the mutated code into the modules that are there and runs
the tests that came by the changed lines, the quickest first, until one fails.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mutation_check.operators import Mutant, apply
from mutation_check.patching import put

TIME_LIMIT = 120.0
"""Seconds until a fork counts as killed: the change made something endless."""


@dataclass
class Trace:
    """What an unchanged test did."""

    seconds: float = 0.0
    failed: bool = False
    lines: set[tuple[str, int]] = field(default_factory=set)


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant."""

    mutant: Mutant
    killed_by: str | None  # a test, or None where all of them passed
    tests: int  # that came by


class Runner:
    """A pytest plugin that runs mutants in place of the session's own loop."""

    def __init__(
        self, found: list[Mutant], jobs: int, budget: float, say: Callable[[Outcome], None]
    ) -> None:
        self.mutants, self.jobs, self.budget, self.say = found, jobs, budget, say
        self.files = {str(one.file) for one in found}
        self.failed: list[str] = []
        self.outcomes: list[Outcome] = []
        self.reports: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = session.items
        traces: dict[str, Trace] = {}
        for part in in_forks([self._tracing(items[i :: self.jobs]) for i in range(self.jobs)], self.jobs):
            traces |= part[1] or {}
        self.failed = [name for name, trace in traces.items() if trace.failed]
        usable = sorted((i for i in items if self._passes(traces, i)), key=lambda i: traces[i.nodeid].seconds)
        chosen = [list(self._chosen(one, usable, traces)) for one in self.mutants]
        work = [self._testing(one, tests) for one, tests in zip(self.mutants, chosen, strict=True)]
        for number, killer in in_forks(work, self.jobs):
            killed = "a time limit or a crash" if killer is None else killer
            outcome = Outcome(self.mutants[number], killed or None, len(chosen[number]))
            self.outcomes.append(outcome)
            self.say(outcome)
        return True

    def _passes(self, traces: dict[str, Trace], item: pytest.Item) -> bool:
        return item.nodeid in traces and not traces[item.nodeid].failed

    def _chosen(
        self, mutant: Mutant, items: list[pytest.Item], traces: dict[str, Trace]
    ) -> Iterator[pytest.Item]:
        """Tests that came by the mutant's lines, as many as the budget of seconds has room for."""
        wanted, spent = {(str(mutant.file), line) for line in mutant.lines}, 0.0
        for item in items:
            trace = traces[item.nodeid]
            if not trace.lines.isdisjoint(wanted):
                spent += trace.seconds
                if spent > self.budget:
                    return
                yield item

    def _tracing(self, items: list[pytest.Item]) -> Callable[[], dict[str, Trace]]:
        def work() -> dict[str, Trace]:
            found = {}
            for item, following in zip(items, [*items[1:], None], strict=True):
                trace = found[item.nodeid] = Trace()
                tracer = _line_tracer(self.files, trace.lines)
                start = time.perf_counter()
                sys.settrace(tracer)
                trace.failed = self._fails(item, following)
                sys.settrace(None)
                trace.seconds = time.perf_counter() - start
            return found

        return work

    def _testing(self, mutant: Mutant, items: list[pytest.Item]) -> Callable[[], str]:
        def work() -> str:
            source = mutant.file.read_text()
            put(compile(apply(mutant, source), str(mutant.file), "exec"), mutant.file)
            for item, following in zip(items, [*items[1:], None], strict=True):
                if self._fails(item, following):
                    return item.nodeid
            return ""

        return work

    def _fails(self, item: pytest.Item, following: pytest.Item | None) -> bool:
        self.reports.clear()
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        return any(report.failed for report in self.reports)


def _line_tracer(files: set[str], lines: set[tuple[str, int]]) -> Any:
    def local(frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def tracer(frame: FrameType, event: str, argument: object) -> Any:
        return local if frame.f_code.co_filename in files else None

    return tracer


def in_forks(work: Iterable[Callable[[], Any]], jobs: int) -> Iterator[tuple[int, Any]]:
    """The number and the result of each piece of work; None where it crashed or took too long."""
    waiting = list(enumerate(work))[::-1]
    running: dict[int, tuple[int, int, float]] = {}  # pid: number, pipe, deadline
    while waiting or running:
        while waiting and len(running) < jobs:
            number, function = waiting.pop()
            pid, pipe = _fork(function)
            running[pid] = (number, pipe, time.monotonic() + TIME_LIMIT * (10 if number < 0 else 1))
        for pid, (number, pipe, deadline) in list(running.items()):
            if (data := _finished(pid, pipe, deadline)) is not None:
                del running[pid]
                yield number, pickle.loads(data) if data else None
        time.sleep(0.002)


def _fork(function: Callable[[], Any]) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        data = pickle.dumps(function())
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(data)
        os._exit(0)
    finally:
        os._exit(1)


def _finished(pid: int, pipe: int, deadline: float) -> bytes | None:
    raise NotImplementedError
