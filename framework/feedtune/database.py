"""An SQLite file of ours that several threads and processes may share."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from feedtune.errors import UserError

PATIENCE = 30.0  # seconds to wait for another process that writes
AT_ONCE = 500  # values that one query names

Statement = tuple[str, tuple[Any, ...]]


class Database:
    """A file whose calls each open it anew: nothing is held across threads and forks, or has to be closed.

    What a call has written is on the disk when it returns (`synchronous = FULL`), in write-ahead-log mode, so
    that readers need not wait for who writes. What is deleted is overwritten.

    Args:
        path: the file; it and its folder are made by the first call that opens it.
        schema: SQL statements that make the tables, each with its values.
        mark: number that says that an SQLite file is of this kind; part of its header.
        version: of the schema; a file of a later one is refused.
        kind: what it is, for messages: "a feedback store".
        name: key of the config that names the file, for messages.
        advice: what a message on a damaged file ends with.

    Raises:
        UserError: by all of it: the file cannot be used, is damaged, or is something else.

    >>> import tempfile
    >>> table = ("CREATE TABLE words (word TEXT)", ())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Database(f"{folder}/words.sqlite", schema=[table], mark=7, kind="a list", name="words")
    ...     with file.writing() as db:
    ...         _ = db.execute("INSERT INTO words VALUES ('yes')")
    ...     with file.reading() as db:
    ...         print(db.execute("SELECT word FROM words").fetchall())
    [('yes',)]
    """

    def __init__(
        self,
        path: str | Path,
        *,
        schema: Sequence[Statement],
        mark: int,
        version: int = 0,
        kind: str,
        name: str,
        advice: str = ", and go on with a copy or a new one",
    ) -> None:
        self.path, self.name = Path(path).expanduser(), name
        self._schema, self._mark, self._version = schema, mark, version
        self._kind, self._advice = kind, advice

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for one piece of work; what SQLite raises inside becomes words that name the file."""
        try:
            self._make_file()
            with closing(sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)) as db:
                self._prepare(db)
                yield db
        except sqlite3.OperationalError as error:  # locked, full, not to be opened, another schema
            raise UserError(f"{self.name}: {self.path} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise self.damaged(str(error)) from error
        except UnicodeDecodeError as error:  # of a message of SQLite that quotes the file
            raise self.damaged("names in it are not UTF-8") from error
        except OSError as error:
            raise UserError(f"{self.name}: {self.path} cannot be used: {error.strerror}") from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The same, in a transaction: all of the block or nothing."""
        with self.reading() as db, transaction(db):
            yield db

    def damaged(self, why: str) -> UserError:
        """The error for a file that cannot be as it was written."""
        return UserError(
            f"{self.name}: {self.path} is damaged ({why}). Move it away, with its -wal and -shm files if "
            f"there are any{self._advice}"
        )

    def _make_file(self) -> None:
        """An empty file that nobody else may read, if there is none: SQLite would ask only the umask."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Make the tables in a new file; refuse a file of somebody else."""
        db.execute("PRAGMA synchronous = FULL")  # an answer that was thanked for survives a power cut, too
        db.execute("PRAGMA secure_delete = ON")
        if _number(db, "application_id") != self._mark:
            with transaction(db):  # or two processes that begin at once would see half of each other
                self._make(db)
        if (found := _number(db, "user_version")) > self._version:
            raise UserError(
                f"{self.name}: {self.path} was made by a later feedtune (format {found}, this one knows "
                f"{self._version}); update feedtune"
            )
        with suppress(sqlite3.OperationalError):  # another process is just doing it, or the disk cannot
            db.execute("PRAGMA journal_mode = WAL")

    def _make(self, db: sqlite3.Connection) -> None:
        mark = _number(db, "application_id")
        if mark == self._mark:
            return
        if mark or db.execute("SELECT count(*) FROM sqlite_schema").fetchone() != (0,):
            raise UserError(
                f"{self.name}: {self.path} is a database, but not {self._kind}; name another file"
            )
        for statement, values in self._schema:
            db.execute(statement, values)
        db.execute(f"PRAGMA application_id = {self._mark}")
        db.execute(f"PRAGMA user_version = {self._version}")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing; waits for other writers at its beginning, where waiting can help."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(
            sqlite3.Error
        ):  # the first error is the one to tell; SQLite may have rolled back itself
            db.execute("ROLLBACK")
        raise


def _number(db: sqlite3.Connection, pragma: str) -> int:
    return int(db.execute(f"PRAGMA {pragma}").fetchone()[0])
