"""The tables of a feedback store: records as rows, each sealed, inside of one connection."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from feedtune.database import AT_ONCE, Database
from feedtune.errors import UserError
from feedtune.feedback.checking import check_answer, seconds
from feedtune.feedback.ids import subject_of
from feedtune.feedback.records import Answer, Event, Item, Response
from feedtune.feedback.storage.accounts import Account
from feedtune.feedback.storage.sealing import Sealer

SCHEMA = (
    "CREATE TABLE lock (body TEXT)",
    "CREATE TABLE responses (id TEXT PRIMARY KEY, body TEXT)",
    "CREATE TABLE items (number INTEGER PRIMARY KEY, id TEXT UNIQUE, body TEXT)",
    "CREATE TABLE answers (number INTEGER PRIMARY KEY, id TEXT UNIQUE, item TEXT, kind TEXT, subject TEXT, "
    "rater TEXT, by TEXT, at REAL, body TEXT)",
    "CREATE UNIQUE INDEX said_once ON answers (rater, item, kind, subject) WHERE kind != 'comment'",
    "CREATE TABLE seen (id TEXT PRIMARY KEY, rater TEXT)",
    "CREATE TABLE events (number INTEGER PRIMARY KEY, id TEXT UNIQUE, response TEXT, at REAL, body TEXT)",
    "CREATE TABLE secret (body TEXT)",
    "CREATE TABLE accounts (pseudonym TEXT PRIMARY KEY, role TEXT, token TEXT UNIQUE, body TEXT)",
)


class Tables:
    """Records in and out of the rows of an open connection.

    Args:
        db: the connection, in a transaction where something is written.
        sealer: closes and opens what rows hold.
        file: of the connection, for messages.
    """

    def __init__(self, db: sqlite3.Connection, sealer: Sealer, file: Database) -> None:
        self.db, self.sealer, self.file = db, sealer, file

    def lock(self) -> str:
        """The row that shows by which key texts are encrypted."""
        row = self.db.execute("SELECT body FROM lock").fetchone()
        if row is None:
            raise self.file.damaged("it has lost its lock")
        return str(row[0])

    # Items and their responses

    def add(self, item: Item) -> bool:
        """Whether it is new."""
        for one in item.responses:
            value = {"text": one.text, "run": one.run, "checkpoint": one.checkpoint}
            body = self.sealer.close("responses", [one.id], value)
            self.db.execute("INSERT OR IGNORE INTO responses VALUES (?, ?)", (one.id, body))
        asked = {
            "prompt": item.prompt,
            "responses": [one.id for one in item.responses],
            "messages": [dict(one) for one in item.messages],
            "columns": dict(item.columns),
        }
        row = (item.id, self.sealer.close("items", [item.id], asked))
        return self.db.execute("INSERT OR IGNORE INTO items (id, body) VALUES (?, ?)", row).rowcount > 0

    def items(self, after: int = 0) -> list[Item]:
        """All, in the order in which they came, but for the first so many."""
        query = "SELECT id, body FROM items ORDER BY number LIMIT -1 OFFSET ?"
        rows = self.db.execute(query, (after,)).fetchall()
        said = self._said(self.db.execute("SELECT id, body FROM responses")) if rows else {}
        return [self._item(name, self._open("items", [name], body), said) for name, body in rows]

    def item(self, name: str) -> Item:
        """One; a `UserError` where there is none."""
        row = self.db.execute("SELECT body FROM items WHERE id = ?", (searched(name),)).fetchone()
        if row is None:
            raise UserError(f"item: {self.file.path} has no item '{name}'")
        asked = self._open("items", [name], row[0])
        ids, said = asked["responses"], dict[str, Response]()
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            places = ",".join("?" * len(some))
            said |= self._said(
                self.db.execute(f"SELECT id, body FROM responses WHERE id IN ({places})", some)
            )
        return self._item(name, asked, said)

    def _said(self, rows: Iterable[Sequence[Any]]) -> dict[str, Response]:
        return {name: Response(id=name, **self._open("responses", [name], body)) for name, body in rows}

    def _item(self, name: str, asked: dict[str, Any], said: dict[str, Response]) -> Item:
        if not said.keys() >= set(asked["responses"]):
            raise self.file.damaged("a response to an item has gone")
        return Item(
            id=name,
            prompt=asked["prompt"],
            responses=tuple(said[one] for one in asked["responses"]),
            messages=tuple(asked["messages"]),
            columns=asked["columns"],
        )

    # Answers

    def answer(self, answer: Answer) -> bool:
        """Whether it is new. Of one rater, the later answer to a question stands, the earlier one goes."""
        check_answer(answer, self.item(answer.item))
        found = self.db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (answer.id, answer.rater))
        if found.rowcount == 0:
            return False
        columns = _columns(answer)
        if answer.kind != "comment" and not self._give_way(columns):
            return False
        said = {
            "responses": list(answer.responses),
            "value": answer.value,
            "time": answer.time,
            "tags": list(answer.tags),
        }
        query = "INSERT INTO answers (id, item, kind, subject, rater, by, at, body) VALUES (?,?,?,?,?,?,?,?)"
        self.db.execute(query, (*columns, self.sealer.close("answers", columns, said)))
        return True

    def _give_way(self, columns: Sequence[Any]) -> bool:
        """Delete what this rater has said to the question before; False: it is later than this."""
        _, item, kind, subject, rater, _, at = columns
        where, about = "item = ? AND kind = ? AND subject = ? AND rater = ?", (item, kind, subject, rater)
        if self.db.execute(f"SELECT 1 FROM answers WHERE {where} AND at > ?", (*about, at)).fetchone():
            return False
        self.db.execute(f"DELETE FROM answers WHERE {where}", about)
        return True

    def answers(self, kinds: Sequence[str] | None, rater: str | None) -> list[Answer]:
        """By time: of some kinds, of one rater, or all."""
        query = "SELECT id, item, kind, subject, rater, by, at, body FROM answers ORDER BY at, number"
        return [
            self._answer(columns, body)
            for *columns, body in self.db.execute(query)
            if (kinds is None or columns[2] in kinds) and (rater is None or columns[4] == rater)
        ]

    def _answer(self, columns: Sequence[Any], body: str) -> Answer:
        name, item, kind, _, rater, by, _ = columns
        said = self._open("answers", columns, body)
        said |= {"responses": tuple(said["responses"]), "tags": tuple(said["tags"])}
        return Answer(id=name, item=item, kind=kind, rater=rater, by=by, **said)

    # Events

    def log(self, event: Event) -> bool:
        """Whether it is new."""
        columns = (event.id, event.response, seconds(event.time, "event: time"))
        happened = {
            "kind": event.kind,
            "value": event.value,
            "position": event.position,
            "propensity": event.propensity,
            "time": event.time,
        }
        query = "INSERT OR IGNORE INTO events (id, response, at, body) VALUES (?,?,?,?)"
        row = (*columns, self.sealer.close("events", columns, happened))
        return self.db.execute(query, row).rowcount > 0

    def events(self, responses: set[str] | None) -> list[Event]:
        """By time: of some responses, or all."""
        query = "SELECT id, response, at, body FROM events ORDER BY at, number"
        return [
            Event(id=columns[0], response=columns[1], **self._open("events", columns, body))
            for *columns, body in self.db.execute(query)
            if responses is None or columns[1] in responses
        ]

    # Accounts

    def add_account(self, account: Account, token: str) -> None:
        """With the hash of its token."""
        columns = (account.pseudonym, account.role, token)
        body = self.sealer.close("accounts", columns, {"name": account.name, "time": account.time})
        self.db.execute("INSERT INTO accounts VALUES (?,?,?,?)", (*columns, body))

    def accounts(self, token: str | None = None) -> list[Account]:
        """All, or who has the token of this hash."""
        where, values = ("WHERE token = ?", (token,)) if token is not None else ("", ())
        rows = self.db.execute(f"SELECT * FROM accounts {where} ORDER BY rowid", values)
        return [
            Account(pseudonym=columns[0], role=columns[1], **self._open("accounts", columns, body))
            for *columns, body in rows
        ]

    def secret(self) -> str:
        """64 random hexadecimal digits of this store's own, made when first asked for."""
        row = self.db.execute("SELECT body FROM secret").fetchone()
        if row is None:
            row = (self.sealer.close("secret", [], {"hex": secrets.token_hex(32)}),)
            self.db.execute("INSERT INTO secret VALUES (?)", row)
        return str(self._open("secret", [], row[0])["hex"])

    def _open(self, table: str, columns: Sequence[Any], body: Any) -> dict[str, Any]:
        found = self.sealer.open(table, columns, body)
        if found is None:
            raise self.file.damaged(f"a row of '{table}' is not as it was written")
        return found


def searched(value: str) -> str:
    """For a query: what can be no name, such as half a letter, finds nothing.

    >>> searched("rater-1"), searched("\\ud800")
    ('rater-1', '')
    """
    return value if isinstance(value, str) and value.isprintable() else ""


def _columns(answer: Answer) -> tuple[Any, ...]:
    """What can be read of an answer without its body: id, item, kind, subject, rater, by, at."""
    subject, at = subject_of(answer.responses), seconds(answer.time, "answer: time")
    return answer.id, answer.item, answer.kind, subject, answer.rater, answer.by, at
