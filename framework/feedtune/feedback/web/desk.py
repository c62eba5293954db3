"""What the server does, apart from HTTP: ask the next question, take an answer, count."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feedtune.errors import UserError
from feedtune.feedback.asking.choosing import Key, Question, choose, questions, shown
from feedtune.feedback.ids import now
from feedtune.feedback.records import Answer, Item, Kind, RaterKind
from feedtune.feedback.storage.accounts import Account
from feedtune.feedback.storage.store import FeedbackStore
from feedtune.feedback.web.tickets import Tickets

ASKED: tuple[Kind, ...] = ("comparison", "rating", "edit")
"""Kinds that the server asks for; comments come by themselves."""

Worth = Callable[[Sequence[Question]], Mapping[Key, float]]
"""How much the answer to each question would teach."""


@dataclass(frozen=True)
class Said:
    """An answer as it comes from outside."""

    ticket: str
    item: str
    kind: Kind
    responses: tuple[str, ...]
    value: str | float
    tags: tuple[str, ...] = ()
    by: RaterKind = "person"


class Desk:
    """The store, with the rules of who is asked what.

    Args:
        store: what is asked and answered.
        tickets: gives answers their ids.
        worth: chooses among questions; None: chance does.
        overlap: see `feedtune.feedback.asking.choosing.choose`.
    """

    def __init__(
        self, store: FeedbackStore, tickets: Tickets, worth: Worth | None = None, overlap: float = 0.2
    ) -> None:
        self.store, self.tickets, self.worth, self.overlap = store, tickets, worth, overlap
        self._items = list[Item]()  # those that have been read: items never change, but further ones come
        self._asked: dict[Kind, tuple[int, list[Question]]] = {}  # of so many items
        self._reading = threading.Lock()

    def items(self) -> list[Item]:
        """All that the store holds by now; only those that are new to this desk are read."""
        with self._reading:
            self._items += self.store.items(after=len(self._items))
            return self._items[:]

    def asked(self, kind: Kind) -> list[Question]:
        """All questions of a kind."""
        items = self.items()
        count, found = self._asked.get(kind, (0, []))
        if count != len(items):
            found = questions(items, kind)
            self._asked[kind] = (len(items), found)
        return found

    def next(self, rater: str, kind: Kind, skipped: Collection[str] = ()) -> dict[str, Any]:
        """The next question, ready for JSON; `item` is null when all are answered.

        Args:
            rater: whose turn it is.
            kind: of the question.
            skipped: ids of responses that are not to be asked about now.
        """
        asked, answered = self.asked(kind), self.store.answered(kind)
        passed = {one.key for one in asked if skipped and {r.id for r in one.responses} <= set(skipped)}
        found = choose(
            asked,
            answered,
            kind,
            rater,
            worth=self.worth(asked) if self.worth else None,
            overlap=self.overlap,
            skipped=passed,
        )
        mine = sum(one.rater == rater for one in answered)
        count = {"answered": mine, "questions": len(asked)}
        if found is None:
            return {"kind": kind, "item": None, "answer": None, "responses": [], **count}
        responses = shown(found, rater)
        names = [one.id for one in responses]
        return {
            "kind": kind,
            "answer": self.tickets.ticket(rater, kind, found.item.id, names),
            "item": _asked(found.item),
            "responses": [{"id": one.id, "text": one.text} for one in responses],
            **count,
        }

    def ticket(self, rater: str, item: str, response: str) -> str:
        """An id for a comment on one response.

        Raises:
            UserError: there is no such response to this item.
        """
        if response not in {one.id for one in self.store.item(item).responses}:
            raise UserError(f"response: the item has none with the id '{response}'")
        return self.tickets.ticket(rater, "comment", item, [response])

    def take(self, rater: str, said: Said) -> bool:
        """Keep an answer; False: this click has come before.

        Raises:
            UserError: nobody asked this rater this question, or it is no answer to it.
        """
        if not self.tickets.is_ticket(said.ticket, rater, said.kind, said.item, said.responses):
            raise UserError("answer: this id was not given to you for this question; ask /api/next for one")
        return self.store.answer(
            Answer(
                id=said.ticket,
                item=said.item,
                kind=said.kind,
                responses=said.responses,
                value=said.value,
                rater=rater,
                by=said.by,
                time=now(),
                tags=said.tags,
            )
        )

    def progress(self, account: Account) -> dict[str, Any]:
        """How much is done of each kind: by this rater, and for an admin by everybody."""
        answers = self.store.answers()
        mine = Counter(one.kind for one in answers if one.rater == account.pseudonym)
        every = Counter(one.kind for one in answers)
        told: dict[str, Any] = {"rater": account.pseudonym, "role": account.role, "kinds": {}}
        for kind in ASKED:
            told["kinds"][kind] = {"questions": len(self.asked(kind)), "answered": mine[kind]}
            if account.role == "admin":
                told["kinds"][kind]["answers"] = every[kind]
        return told


def _asked(item: Item) -> dict[str, Any]:
    """An item as raters see it: without runs, and without the task's columns, which may hold a solution."""
    return {"id": item.id, "prompt": item.prompt, "messages": [dict(one) for one in item.messages]}
