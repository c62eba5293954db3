"""Values as they lie in a row: JSON with a seal over the whole row, encrypted where there is a key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from feedtune.feedback.storage.encryption import Cipher

LENGTH = 32  # characters of a seal


class Sealer:
    """Closes a value together with the row's readable columns, and opens it only as it was closed.

    SQLite itself does not notice a flipped bit in a text. With a key the seal lies inside of what is
    encrypted, so that nobody without it can change a column, or put one row's value into another.

    >>> sealer = Sealer(Cipher(None))
    >>> body = sealer.close("answers", ["rater-1"], {"value": "tie"})
    >>> sealer.open("answers", ["rater-1"], body), sealer.open("answers", ["rater-2"], body)
    ({'value': 'tie'}, None)
    """

    def __init__(self, cipher: Cipher) -> None:
        self.cipher = cipher

    def close(self, table: str, columns: Sequence[Any], value: dict[str, Any]) -> str:
        """What to keep for a value that JSON can say."""
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII, lone surrogates too
        return self.cipher.hide(_seal(table, columns, text) + text)

    def open(self, table: str, columns: Sequence[Any], body: Any) -> dict[str, Any] | None:
        """The value; None: the row is not as it was written."""
        shown = self.cipher.show(body) if isinstance(body, str) else None
        if shown is None or shown[:LENGTH] != _seal(table, columns, shown[LENGTH:]):
            return None
        value: dict[str, Any] = json.loads(shown[LENGTH:])
        return value


def _seal(table: str, columns: Sequence[Any], text: str) -> str:
    said = json.dumps([table, *columns, text])
    return hashlib.sha256(said.encode()).hexdigest()[:LENGTH]
