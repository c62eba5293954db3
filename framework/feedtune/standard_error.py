"""What is said on standard error may get lost, as in a log on a full disk; the run that says it goes on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class Unbreakable:
    """A stream whose writes never raise OSError; all else is the stream's own.

    >>> import os
    >>> broken = open(os.open(os.devnull, os.O_RDONLY), "w")
    >>> _ = Unbreakable(broken).write("nobody reads this")
    >>> Unbreakable(broken).flush()
    >>> with suppress(OSError):
    ...     broken.close()
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write what can be written."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def unbreakable() -> Iterator[None]:
    """Inside, standard error is one."""
    former = sys.stderr
    sys.stderr = Unbreakable(former)
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = former
