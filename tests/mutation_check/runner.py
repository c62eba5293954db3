"""Runs the tests against each mutant, in forks of one process that has collected them.

Nothing is imported or collected twice: a fork puts the mutated code into the modules that are there and runs
the tests that came by the changed lines until one fails: first those that saw other changes of the file, then
the quickest.
"""

from __future__ import annotations

import gc
import math
import os
import pickle
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mutation_check.operators import Mutant, apply
from mutation_check.patching import put
from mutation_check.watching import watch

TIME_LIMIT = 300.0
"""Seconds until a fork counts as killed: the change made something endless."""

STOPPED = "a time limit or a crash"


@dataclass
class Trace:
    """What an unchanged test did."""

    seconds: float
    failed: bool
    lines: set[tuple[str, int]]  # of the files that are changed


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant."""

    mutant: Mutant
    killed_by: str | None  # a test, or None where all of them passed
    tests: int  # that came by


class Runner:
    """A pytest plugin that runs mutants in place of the session's own loop."""

    def __init__(
        self,
        found: list[Mutant],
        concerns: Callable[[Mutant, pytest.Item], bool],
        jobs: int,
        budget: float,
        say: Callable[[Outcome], None],
    ) -> None:
        self.mutants, self.concerns = found, concerns
        self.jobs, self.budget, self.say = jobs, budget, say
        self.files = {one.file for one in found}
        self.failed: list[str] = []
        self.outcomes: list[Outcome] = []
        self.kills: Counter[tuple[Path, str]] = Counter()  # by file and test, so far
        self.reports: list[pytest.TestReport] = []

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """A counterexample is all that is wanted of hypothesis, not the smallest one, and always the same."""
        from hypothesis import Phase, settings  # pytest wants to import it first

        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutation", phases=phases, database=None, deadline=None, derandomize=True)
        settings.load_profile("mutation")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        gc.collect()
        gc.freeze()  # a collection in a fork would touch, and so copy, every page
        items = session.items
        traces: dict[str, Trace] = {}
        for _, part in in_forks([self._tracing(items[i :: self.jobs]) for i in range(self.jobs)], self.jobs):
            traces |= part or {}
        self.failed = [name for name, trace in traces.items() if trace.failed]
        usable = sorted((i for i in items if self._passes(traces, i)), key=lambda i: traces[i.nodeid].seconds)
        chosen = [list(self._chosen(one, usable, traces)) for one in self.mutants]
        work = [self._testing(one, tests) for one, tests in zip(self.mutants, chosen, strict=True)]
        for number, killer in in_forks(work, self.jobs, TIME_LIMIT):
            killed = STOPPED if killer is None else killer
            outcome = Outcome(self.mutants[number], killed or None, len(chosen[number]))
            self.outcomes.append(outcome)
            self.kills[outcome.mutant.file, killed] += 1
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
            if self.concerns(mutant, item) and not trace.lines.isdisjoint(wanted):
                spent += trace.seconds
                if spent > self.budget:
                    return
                yield item

    def _tracing(self, items: list[pytest.Item]) -> Callable[[], dict[str, Trace]]:
        def work() -> dict[str, Trace]:
            found = {}
            lines: set[tuple[str, int]] = set()
            for file in self.files:
                watch(file, lines.add)
            for item, following in zip(items, [*items, None][1:], strict=True):
                start = time.perf_counter()
                failed = self._fails(item, following)
                found[item.nodeid] = Trace(time.perf_counter() - start, failed, set(lines))
                lines.clear()
            return found

        return work

    def _testing(self, mutant: Mutant, items: list[pytest.Item]) -> Callable[[], str]:
        def work() -> str:
            source = mutant.file.read_text()
            put(compile(apply(mutant, source), str(mutant.file), "exec"), mutant.file)
            likely = sorted(items, key=lambda item: -self.kills[mutant.file, item.nodeid])
            for item, following in zip(likely, [*likely, None][1:], strict=True):
                if self._fails(item, following):
                    return item.nodeid
            return ""

        return work

    def _fails(self, item: pytest.Item, following: pytest.Item | None) -> bool:
        self.reports.clear()
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
        return any(report.failed for report in self.reports)


def in_forks(
    work: Iterable[Callable[[], Any]], jobs: int, limit: float = math.inf
) -> Iterator[tuple[int, Any]]:
    """The number and the result of each piece of work; None where it crashed or took too long."""
    waiting = list(enumerate(work))[::-1]
    running: dict[int, tuple[int, float]] = {}  # process: number, deadline
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, function = waiting.pop()
                running[_fork(function, Path(folder, str(number)))] = (number, time.monotonic() + limit)
            for pid, (number, deadline) in list(running.items()):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                if os.waitpid(pid, os.WNOHANG)[0]:
                    del running[pid]
                    file = Path(folder, str(number))
                    result = pickle.loads(file.read_bytes()) if file.exists() else None
                    if isinstance(result, Exception):
                        raise result
                    yield number, result
            time.sleep(0.005)


def _fork(function: Callable[[], Any], result: Path) -> int:
    """The process that writes what the function returns; silent."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        half = result.with_suffix(".half")
        try:
            found = function()
        except Exception as error:  # of this script: failures of tests never get here
            error.add_note(traceback.format_exc())
            found = error
        half.write_bytes(pickle.dumps(found))
        half.rename(result)
    finally:
        os._exit(0)
