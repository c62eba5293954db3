"""The store of feedback, one SQLite file: what was asked and answered, who may answer, and what happened."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, get_args

from feedtune.database import Database
from feedtune.errors import UserError, nearest, nearest_path
from feedtune.feedback.checking import check_event, check_item, check_name
from feedtune.feedback.ids import now
from feedtune.feedback.records import Answer, Answered, Event, Item, Kind, RaterKind
from feedtune.feedback.storage.accounts import Account, Role, new_pseudonym, new_token, token_hash
from feedtune.feedback.storage.encryption import Cipher
from feedtune.feedback.storage.sealing import Sealer
from feedtune.feedback.storage.tables import SCHEMA, Tables, searched

FILE = "feedback.sqlite"
"""The name of the store in a run folder."""

MARK = 0x66656462  # "fedb": says that an SQLite file is a feedback store
VERSION = 1
LOCK = "feedtune"  # kept as texts are: shows whether they are encrypted, and by which key


class Rater(NamedTuple):
    """Somebody who has answered, and how often."""

    rater: str
    by: RaterKind
    answers: int


class FeedbackStore:
    """Items, answers, events and accounts in an SQLite file that threads and processes may share.

    What a call has taken is on the disk when it returns, whole, and stands there once: an item or event of a
    known id is the same one, an answer of a known id is the same click. Where a rater answers the same
    question again, the later answer takes the place of the earlier one; comments all stay.

    Args:
        path: the file; it and its folder are made by the first call.
        key: the name of the environment variable that holds the key of an encrypted store; None: texts are
            kept as they are.
        name: key of the config that names the file, for messages.

    Raises:
        UserError: by every method too: the file cannot be used, is damaged, is none of ours, or its key is
            missing or another one.

    >>> import tempfile
    >>> from feedtune.feedback import item_of, now, response_of
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = FeedbackStore(f"{folder}/feedback.sqlite")
    ...     item = item_of("1+1?", [response_of("1+1?", "2")])
    ...     said = Answer(id="click 1", item=item.id, kind="rating", responses=(item.responses[0].id,),
    ...                   value=5, rater="rater-1", time=now())
    ...     print(store.add([item]), store.answer(said), store.answer(said), len(store.answers()))
    1 True False 1
    """

    def __init__(self, path: str | Path, key: str | None = None, *, name: str = "feedback.path") -> None:
        self.cipher = Cipher(key, f"{name.rpartition('.')[0] or 'feedback'}.key")
        self._sealer = Sealer(self.cipher)
        schema = [
            *((table, ()) for table in SCHEMA),
            ("INSERT INTO lock VALUES (?)", (self.cipher.hide(LOCK),)),
        ]
        self._file = Database(
            path, schema=schema, mark=MARK, version=VERSION, kind="a feedback store", name=name
        )

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def existing(self) -> FeedbackStore:
        """The store itself, if there is a file: for whoever only reads.

        Raises:
            UserError: there is none.
        """
        if self.path.is_file():
            return self
        raise UserError(
            f"{self._file.name}: there is no feedback store {self.path}.{nearest_path(self.path)}"
        )

    # What is asked

    def add(self, items: Iterable[Item]) -> int:
        """Take in items, all or none; returns how many of them are new."""
        found = list(items)
        for item in found:
            check_item(item)
        with self._writing() as tables:
            return sum(map(tables.add, found))

    def items(self, after: int = 0) -> list[Item]:
        """Every item, as they came, but for the first so many. None ever goes or changes."""
        with self._reading() as tables:
            return tables.items(after)

    def item(self, id: str) -> Item:  # noqa: A002 - as the noun's own field
        """One item.

        Raises:
            UserError: there is none of this id.
        """
        with self._reading() as tables:
            return tables.item(id)

    # What is answered

    def answer(self, answer: Answer) -> bool:
        """Take in an answer; False: it was known already, or what this rater said later stands.

        Raises:
            UserError: there is no such item, or this is no answer to it.
        """
        return self.answer_all([answer]) == 1

    def answer_all(self, answers: Iterable[Answer]) -> int:
        """Take in answers, all or none; returns how many of them are new."""
        found = list(answers)
        with self._writing() as tables:
            return sum(map(tables.answer, found))

    def answers(self, kinds: Sequence[Kind] | None = None, rater: str | None = None) -> list[Answer]:
        """Answers by time: all, or those of some kinds, or of one rater.

        Raises:
            UserError: there is no such kind.
        """
        for kind in kinds or ():
            _check_kind(kind)
        with self._reading() as tables:
            return tables.answers(kinds, rater)

    def answered(self, kind: Kind) -> list[Answered]:
        """Who has answered what of a kind; as nobody's words are read, this is quick.

        Raises:
            UserError: there is no such kind.
        """
        _check_kind(kind)
        query = "SELECT item, subject, rater FROM answers WHERE kind = ?"
        with self._reading() as tables:
            return [Answered(*row) for row in tables.db.execute(query, (kind,))]

    def retract(self, id: str, rater: str) -> bool:  # noqa: A002
        """Take back an answer of this rater; False: there is none. Its id stays known."""
        with self._writing() as tables:
            values = searched(id), searched(rater)
            return tables.db.execute("DELETE FROM answers WHERE id = ? AND rater = ?", values).rowcount > 0

    # Who answers

    def raters(self) -> list[Rater]:
        """Who has answered, and how often, by pseudonym."""
        query = "SELECT rater, by, count(*) FROM answers GROUP BY rater, by ORDER BY rater, by"
        with self._reading() as tables:
            return [Rater(*row) for row in tables.db.execute(query)]

    def forget(self, rater: str) -> int:
        """Delete everything of one rater, the login too; returns how many answers it was.

        What is deleted is overwritten in the file, and its write-ahead log is emptied.
        """
        whom = (searched(rater),)
        with self._writing() as tables:
            count = tables.db.execute("DELETE FROM answers WHERE rater = ?", whom).rowcount
            tables.db.execute("DELETE FROM seen WHERE rater = ?", whom)
            tables.db.execute("DELETE FROM accounts WHERE pseudonym = ?", whom)
        with self._reading() as tables:
            tables.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return int(count)

    def add_account(
        self, role: Role, name: str | None = None, *, pseudonym: str | None = None
    ) -> tuple[str, str]:
        """Make a login; returns its pseudonym and its token, of which the store keeps only a hash.

        Args:
            role: what it may do.
            name: of whoever gets it.
            pseudonym: of a program that logs in again and again; its former login ends. None: a new one, that
                says nothing about who has it.
        """
        if role not in get_args(Role):
            raise UserError(f"role: expected {', '.join(get_args(Role))}, got {role!r}")
        for key, value in (("name", name), ("pseudonym", pseudonym)):
            if value is not None:
                check_name(value, key)
        token = new_token()
        account = Account(pseudonym=pseudonym or new_pseudonym(role), role=role, name=name, time=now())
        with self._writing() as tables:
            tables.db.execute("DELETE FROM accounts WHERE pseudonym = ?", (account.pseudonym,))
            tables.add_account(account, token_hash(token))
        return account.pseudonym, token

    def account(self, token: str) -> Account | None:
        """Who has this token; None: nobody."""
        with self._reading() as tables:
            return next(iter(tables.accounts(token_hash(token))), None)

    def accounts(self) -> list[Account]:
        """Every login, in the order in which they were made."""
        with self._reading() as tables:
            return tables.accounts()

    def revoke(self, pseudonym: str) -> bool:
        """End a login; what was answered stays. False: there is none."""
        with self._writing() as tables:
            ended = tables.db.execute("DELETE FROM accounts WHERE pseudonym = ?", (searched(pseudonym),))
            return ended.rowcount > 0

    def secret(self) -> bytes:
        """32 random bytes of this store's own, under which a server signs what it hands out."""
        with self._writing() as tables:
            return bytes.fromhex(tables.secret())

    # What happens

    def log(self, events: Iterable[Event]) -> int:
        """Take in events, all or none; returns how many of them are new. Their responses may come later."""
        found = list(events)
        for event in found:
            check_event(event)
        with self._writing() as tables:
            return sum(map(tables.log, found))

    def events(self, responses: Iterable[str] | None = None) -> list[Event]:
        """Events by time: all, or those of some responses."""
        wanted = None if responses is None else set(responses)
        with self._reading() as tables:
            return tables.events(wanted)

    # Inside of a connection

    @contextmanager
    def _reading(self) -> Iterator[Tables]:
        with self._file.reading() as db:
            yield self._unlocked(db)

    @contextmanager
    def _writing(self) -> Iterator[Tables]:
        with self._file.writing() as db:
            yield self._unlocked(db)

    def _unlocked(self, db: sqlite3.Connection) -> Tables:
        """Refuse a key where there is none, none where there is one, and another one."""
        tables = Tables(db, self._sealer, self._file)
        lock, key = tables.lock(), self.cipher.name
        if lock == LOCK and self.cipher.hides:
            raise UserError(
                f"{key}: {self.path} is not encrypted. Leave {key} out, or export it and import that into "
                "a new store with the key"
            )
        if lock != LOCK and not self.cipher.hides:
            raise UserError(
                f"{key}: {self.path} is encrypted; name the environment variable that holds its key, as in "
                f"{key}=FEEDBACK_KEY"
            )
        if self.cipher.show(lock) != LOCK:
            raise UserError(
                f"{key}: the key in {self.cipher.variable} is not the one that {self.path} was made with"
            )
        return tables


def _check_kind(kind: str) -> None:
    if kind not in get_args(Kind):
        known = ", ".join(get_args(Kind))
        raise UserError(f"kind: expected one of {known}, got {kind!r}.{nearest(str(kind), get_args(Kind))}")


def store_path(place: str | Path) -> Path:
    """Where a run folder, a file of items or a store itself keeps its feedback.

    >>> store_path("answers.sqlite").name, store_path("data/prompts.jsonl").name
    ('answers.sqlite', 'feedback.sqlite')
    """
    found = Path(place).expanduser()
    if found.suffix in (".sqlite", ".db"):
        return found
    return found.parent / FILE if found.is_file() or found.suffix == ".jsonl" else found / FILE
