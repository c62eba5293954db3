"""Errors that are nobody's mistake in the arguments: one line for the user, the traceback in a file."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feedtune.config.secrets import redacted
from feedtune.errors import UserError, one_line

NAME = "error.txt"
"""In a run folder: the traceback of the error that ended the run last."""

WHERE = "the traceback is in "


@contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """An error inside, but a `UserError`, leaves its traceback in error.txt of the folder, as a note says.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     try:
    ...         with recorded(Path(folder)):
    ...             raise ValueError("broken")
    ...     except ValueError as error:
    ...         print(error.__notes__[0].replace(folder, "RUN"), (Path(folder) / NAME).read_text()[-19:-1])
    the traceback is in RUN/error.txt ValueError: broken
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        _record(error, folder / NAME)
        raise


def described(error: Exception) -> str:
    """What the command line says of an error: the error, then its notes, a line each."""
    notes = list(getattr(error, "__notes__", []))
    if not any(note.startswith(WHERE) for note in notes):  # no run folder was known where it arose
        with tempfile.NamedTemporaryFile(prefix="feedtune-error-", suffix=".txt", delete=False) as file:
            _record(error, Path(file.name))
        notes = error.__notes__
    return "\n".join([f"{type(error).__name__}: {one_line(error)}", *map(one_line, notes)])


def _record(error: Exception, path: Path) -> None:
    try:
        text = redacted("".join(traceback.format_exception(error)))
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as failure:  # a full disk, perhaps the same that ended the run
        error.add_note(f"{WHERE}no file: {path} cannot be written: {one_line(failure)}")
    else:
        error.add_note(f"{WHERE}{path}")
