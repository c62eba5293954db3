"""A small runner of laws, for `feedtune check`: it needs no pytest, and says what failed in one paragraph."""

from __future__ import annotations

import inspect
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from feedtune.errors import UserError, one_line
from feedtune.testing.suite import Suite, seeded

Outcome = Literal["passed", "failed", "not applicable"]

LONGEST = 600
"""Most characters of a message."""


@dataclass(frozen=True)
class Result:
    """How one law went."""

    law: str  # as people read it: "a pad leaves no trace"
    outcome: Outcome
    seconds: float
    message: str = ""  # what failed, or why the law does not apply


def run_suite(kind: type[Suite]) -> Iterator[Result]:
    """Every law of a suite, each over a suite of its own.

    >>> from feedtune.testing import RewardSuite
    >>> class Mine(RewardSuite):
    ...     def make(self): return lambda samples: [len(sample.response) for sample in samples]
    >>> {result.law: result.outcome for result in run_suite(Mine)}["silence is scored too"]
    'passed'
    """
    for name in kind.laws():
        yield run_law(kind(), name)


def run_law(suite: Suite, name: str) -> Result:
    """One law of a suite."""
    method = getattr(suite, name)
    with tempfile.TemporaryDirectory(prefix="feedtune-check-") as folder:
        given = {"tmp_path": Path(folder)} if "tmp_path" in inspect.signature(method).parameters else {}
        result = measured(readable(name), lambda: method(**given))
    if result.outcome == "passed" and suite.not_applicable is not None:
        return Result(result.law, "not applicable", result.seconds, suite.not_applicable)
    return result


def measured(law: str, check: Callable[[], Any]) -> Result:
    """Call a check; what it raises becomes a message."""
    started = time.perf_counter()
    try:
        with seeded(0):
            check()
    except Exception as error:  # whatever a plugin's own code raises
        return Result(law, "failed", time.perf_counter() - started, said(error))
    return Result(law, "passed", time.perf_counter() - started)


def readable(name: str) -> str:
    """The name of a law in words.

    >>> readable("test_a_pad_leaves_no_trace")
    'a pad leaves no trace'
    """
    return name.removeprefix("test_").replace("_", " ")


def said(error: Exception) -> str:
    """What an error says, in one paragraph, with the place where another error than a broken law was raised.

    >>> said(AssertionError("order: the scores\\n  do not follow"))
    'order: the scores do not follow'
    """
    message = str(error)
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, AssertionError):
        text = one_line(message) if message else f"this does not hold: {frames[-1].line if frames else '?'}"
    elif isinstance(error, UserError):
        text = one_line(message)
    else:
        where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        text = (
            f"{type(error).__name__}: {one_line(message)}{where}"
            if message
            else f"{type(error).__name__}{where}"
        )
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
