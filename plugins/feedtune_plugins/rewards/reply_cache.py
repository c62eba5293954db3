"""Replies of a remote judge, kept by what was asked: a resumed run hears the same and pays nothing twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from feedtune.errors import UserError

MARK = 0x66656564  # "feed": says that an SQLite file is ours
PATIENCE = 30.0  # seconds to wait for another process that writes
KEYS_AT_ONCE = 500

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
        self.path, self.name = Path(path).expanduser(), name

    def get(self, keys: Sequence[str]) -> dict[str, Any]:
        """The replies to those of these questions that have one.

        Raises:
            UserError: the file cannot be read, is damaged, or is something else.
        """
        with self._open() as db:
            return self._read(db, list(dict.fromkeys(keys)))

    def put(self, replies: Replies) -> dict[str, Any]:
        """Keep replies, in one transaction; returns those that stand: another process may have been first.

        Raises:
            UserError: the file cannot be written, is damaged, or is something else.
        """
        rows = [(key, text, _seal(key, text)) for key, text in _as_text(replies).items()]
        with self._open() as db, _transaction(db):
            db.executemany("INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", rows)
            return self._read(db, list(replies))

    def _read(self, db: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for start in range(0, len(keys), KEYS_AT_ONCE):
            some = keys[start : start + KEYS_AT_ONCE]
            places = ",".join("?" * len(some))
            query = f"SELECT key, reply, seal FROM replies WHERE key IN ({places})"
            for key, text, seal in db.execute(query, some):
                if seal != _seal(key, text):
                    raise self._damaged("a reply in it is not as it was written")
                found[key] = json.loads(text)
        return found

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one piece of work; what SQLite raises names the file."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)) as db:
                self._prepare(db)
                yield db
        except sqlite3.OperationalError as error:  # locked, full, not to be opened, another schema
            raise UserError(f"{self.name}: {self.path} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from error
        except OSError as error:
            raise UserError(f"{self.name}: {self.path} cannot be used: {error.strerror}") from error

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Make the table in a new file; refuse a file of somebody else."""
        db.execute("PRAGMA synchronous = FULL")  # what has been paid for survives a power cut, too
        if _mark_of(db) != MARK:
            with _transaction(db):  # or two processes that begin at once would see half of each other
                self._make(db)
        with suppress(sqlite3.OperationalError):  # another process is just doing it, or the disk cannot
            db.execute("PRAGMA journal_mode = WAL")

    def _make(self, db: sqlite3.Connection) -> None:
        mark = _mark_of(db)
        if mark == MARK:
            return
        if mark or db.execute("SELECT count(*) FROM sqlite_schema").fetchone() != (0,):
            raise UserError(f"{self.name}: {self.path} is a database, but none of replies; name another file")
        db.execute("CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT, seal TEXT)")
        db.execute(f"PRAGMA application_id = {MARK}")

    def _damaged(self, why: str) -> UserError:
        return UserError(
            f"{self.name}: {self.path} is damaged ({why}). Move it away, with its -wal and -shm files if "
            "there are any; its questions will be asked again"
        )


def _mark_of(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA application_id").fetchone()[0])


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing; waits for other writers at its beginning, where waiting can help."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(
            sqlite3.Error
        ):  # the first error is the one to tell; SQLite may have rolled back itself
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _as_text(replies: Replies) -> dict[str, str]:
    return {key: json.dumps(reply, allow_nan=False) for key, reply in replies.items()}


def _seal(key: str, text: str) -> str:
    """What shows that a row is as it was written: SQLite itself does not notice a flipped bit in a text."""
    return hashlib.sha256(f"{key} {text}".encode()).hexdigest()[:16]
