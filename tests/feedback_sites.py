"""A feedback page on loopback for tests, and those who log in at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from feedtune.feedback import FeedbackStore, Item, Role, item_of, response_of
from feedtune.feedback.web.serving import serve_in_thread


def make_items(count: int = 3, responses: int = 2) -> list[Item]:
    """Prompts, and responses of the runs x, y, ... to each."""
    return [
        item_of(
            f"Prompt {n}?",
            [response_of(f"Prompt {n}?", f"Answer {m} to {n}.", run="xyzuvw"[m]) for m in range(responses)],
        )
        for n in range(count)
    ]


class Visitor(httpx.Client):
    """Somebody's browser, as far as requests go: cookies are kept, and the CSRF token is sent along."""

    def __init__(self, url: str) -> None:
        super().__init__(base_url=url, trust_env=False, verify=False, timeout=30)  # of plain HTTP

    def log_in(self, token: str) -> Visitor:
        """With a token that somebody has."""
        reply = self.post("/login", json={"token": token})
        assert reply.status_code == 200, reply.text
        self.headers["x-csrf-token"] = reply.json()["csrf"]
        return self

    def asked(self, kind: str = "comparison", **query: Any) -> dict[str, Any]:
        """The next question."""
        reply = self.get("/api/next", params={"kind": kind, **query})
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found

    def answer(self, question: dict[str, Any], value: Any, **changes: Any) -> httpx.Response:
        """Send an answer to a question."""
        return self.post("/api/answers", json=body_of(question, value, **changes))


def body_of(question: dict[str, Any], value: Any, **changes: Any) -> dict[str, Any]:
    """What POST /api/answers takes."""
    return {
        "answer": question["answer"],
        "item": question["item"]["id"],
        "kind": question["kind"],
        "responses": [one["id"] for one in question["responses"]],
        "value": value,
        **changes,
    }


@dataclass(frozen=True)
class Site:
    """A served store."""

    store: FeedbackStore
    url: str
    leaving: ExitStack  # closes what visitors leave open

    def visitor(self, role: Role | None = None) -> Visitor:
        """Somebody new; with a role they have logged in."""
        made = self.leaving.enter_context(Visitor(self.url))
        return made if role is None else made.log_in(self.store.add_account(role)[1])


@contextmanager
def feedback_site(folder: Path, items: list[Item] | None = None, **options: Any) -> Iterator[Site]:
    """A site while the block lasts."""
    store = FeedbackStore(folder / "feedback.sqlite")
    store.add(make_items() if items is None else items)
    with serve_in_thread(store, **options) as url, ExitStack() as leaving:
        yield Site(store, url, leaving)
