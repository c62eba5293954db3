"""Replies of a remote judge, kept by what was asked: a resumed run hears the same and pays nothing twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from feedtune.database import AT_ONCE, Database

MARK = 0x66656564  # "feed": says that an SQLite file is one of replies
TABLE = "CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT, seal TEXT)"

Replies = Mapping[str, Any]


def content_hash(*parts: Any) -> str:
    """A key for what was asked: of all that the reply depends on, as values that JSON can say.

    >>> content_hash("judge", {"a": 1, "b": 2}) == content_hash("judge", {"b": 2, "a": 1})
    True
    >>> content_hash("judge", "1") == content_hash("judge", 1)
    False
    """
    said = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)  # ASCII
    return hashlib.sha256(said.encode()).hexdigest()


class ReplyCache:
    """Replies by key in an SQLite file, which several threads and processes may share.

    Each call opens the file anew: nothing is held across threads and forks, or has to be closed. A reply is
    on the disk when `put` returns, and never changes: of two to the same question, the first one stands.

    Args:
        path: the file; it and its folder are made when something is asked for.
        name: key of the config that names it, for messages.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = ReplyCache(f"{folder}/replies.sqlite")
    ...     for reply in (0.5, 0.7):
    ...         print(cache.put({"how kind?": reply}), cache.get(["how kind?", "how wise?"]))
    {'how kind?': 0.5} {'how kind?': 0.5}
    {'how kind?': 0.5} {'how kind?': 0.5}
    """

    def __init__(self, path: str | Path, name: str = "reward.cache") -> None:
        self._file = Database(
            path,
            schema=[(TABLE, ())],
            mark=MARK,
            kind="one of replies",
            name=name,
            advice="; its questions will be asked again",
        )

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """The replies to those of these questions that have one.

        Raises:
            UserError: the file cannot be read, is damaged, or is something else.
        """
        with self._file.reading() as db:
            return self._read(db, list(dict.fromkeys(keys)))

    def put(self, replies: Replies) -> dict[str, Any]:
        """Keep replies, in one transaction; returns those that stand: another process may have been first.

        Raises:
            UserError: the file cannot be written, is damaged, or is something else.
        """
        rows = [(key, text, _seal(key, text)) for key, text in _as_text(replies).items()]
        with self._file.writing() as db:
            db.executemany("INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", rows)
            return self._read(db, list(replies))

    def _read(self, db: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            places = ",".join("?" * len(some))
            query = f"SELECT key, reply, seal FROM replies WHERE key IN ({places})"
            for key, text, seal in db.execute(query, some):
                if seal != _seal(key, text):
                    raise self._file.damaged("a reply in it is not as it was written")
                found[key] = json.loads(text)
        return found


def _as_text(replies: Replies) -> dict[str, str]:
    return {key: json.dumps(reply, allow_nan=False) for key, reply in replies.items()}


def _seal(key: str, text: str) -> str:
    """What shows that a row is as it was written: SQLite itself does not notice a flipped bit in a text."""
    return hashlib.sha256(f"{key} {text}".encode()).hexdigest()[:16]
