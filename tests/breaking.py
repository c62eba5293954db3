"""Which laws a suite finds broken."""

from __future__ import annotations

from feedtune.testing.runner import run_suite
from feedtune.testing.suite import Suite


def broken_laws(kind: type[Suite]) -> dict[str, str]:
    """Each broken law in words, with what is said of it."""
    return {result.law: result.message for result in run_suite(kind) if result.outcome == "failed"}
