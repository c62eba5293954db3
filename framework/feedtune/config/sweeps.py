"""The folder of a sweep, and the file in it in which each job says what became of it."""

from __future__ import annotations

from pathlib import Path

JOBS = "jobs.jsonl"
"""In the folder of a sweep: one line a job, with its overrides, its folder, and its value or error."""

_begun: list[Path] = []


def begin(folder: Path) -> None:
    """Remember the folder of the sweep that begins, whose jobs have not said anything yet."""
    folder = folder.absolute()
    (folder / JOBS).unlink(missing_ok=True)
    _begun.append(folder)


def taken() -> Path | None:
    """The folder of the sweep that has begun since this was asked last; None: there was none."""
    found = _begun[-1] if _begun else None
    _begun.clear()
    return found
