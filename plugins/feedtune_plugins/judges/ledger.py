"""What has been paid, so that a spending limit holds for a run that is stopped and resumed, too."""

from __future__ import annotations

import json
import math
import os
import threading
from pathlib import Path
from typing import Any

from feedtune.errors import UserError


class Ledger:
    """Sums of money in a file, one JSON object a line with `cost`, to which several processes may add.

    A line is on the disk when `add` returns. One that a killed process has left half-way counts for nothing.

    Args:
        path: the file; it and its folder are made when something is added. null: nothing is kept.

    >>> ledger = Ledger(None)
    >>> ledger.add({"cost": 0.25})
    >>> ledger.total()
    0.25
    """

    def __init__(self, path: str | None) -> None:
        self.path = None if path is None else Path(path).expanduser()
        self._sum, self._read = 0.0, 0
        self._lock = threading.Lock()

    def add(self, entry: dict[str, Any]) -> None:
        """Note what has been paid.

        Raises:
            UserError: the file cannot be written.
        """
        if self.path is None:
            with self._lock:
                self._sum += float(entry["cost"])
            return
        line = json.dumps(entry, allow_nan=False).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                torn = self._is_torn()
                os.write(file.fileno(), (b"\n" if torn else b"") + line + b"\n")  # at once: others write too
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"judge.ledger: {self.path} cannot be written: {error.strerror}") from error

    def _is_torn(self) -> bool:
        """Whether the file ends in the middle of a line."""
        assert self.path is not None
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            return file.read(1) not in (b"", b"\n")

    def total(self) -> float:
        """What has been paid so far, by everybody.

        Raises:
            UserError: the file cannot be read.
        """
        with self._lock:
            if self.path is not None and self.path.exists():
                self._read_on(self.path)
            return self._sum

    def _read_on(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                file.seek(self._read)
                fresh = file.read()
        except OSError as error:
            raise UserError(f"judge.ledger: {path} cannot be read: {error.strerror}") from error
        whole, end, _ = fresh.rpartition(b"\n")
        self._read += len(whole) + len(end)
        self._sum += sum(map(_cost, whole.splitlines()))


def _cost(line: bytes) -> float:
    """What a line says; 0 if it says nothing.

    >>> _cost(b'{"cost": 0.5}'), _cost(b'{"cost": 0.'), _cost(b""), _cost(b'{"cost": NaN}')
    (0.5, 0.0, 0.0, 0.0)
    """
    try:
        cost = float(json.loads(line)["cost"])
    except (ValueError, TypeError, KeyError, OverflowError):
        return 0.0
    return cost if 0 < cost < math.inf else 0.0
