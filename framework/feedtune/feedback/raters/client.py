"""The other end of the web page: a program that logs in, is asked, and answers (extra `feedback`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feedtune.errors import UserError, missing_extra, one_line
from feedtune.feedback.records import Item, Kind, RaterKind, Response

if TYPE_CHECKING:
    import httpx

PATIENCE = 60.0  # seconds for one reply


@dataclass(frozen=True)
class Asked:
    """A question as it was put to one rater."""

    answer: str  # the one-time id of its answer
    kind: Kind
    item: Item  # with the responses that are asked about, in the order in which they are shown

    @property
    def shown(self) -> tuple[str, ...]:
        """The ids of these responses."""
        return tuple(one.id for one in self.item.responses)


class FeedbackClient:
    """A login at a server of `feedtune feedback serve`, from `logged_in`."""

    def __init__(self, http: httpx.Client, rater: str, csrf: str) -> None:
        self._http, self.rater, self._csrf = http, rater, csrf

    def next(self, kind: Kind, skip: Sequence[str] = ()) -> Asked | None:
        """The next question; None when there is none left.

        Args:
            kind: of the question.
            skip: ids of responses that are not to be asked about.
        """
        told = _said(self._http.get("/api/next", params={"kind": kind, "skip": list(skip)}))
        if told["item"] is None:
            return None
        responses = tuple(Response(id=one["id"], text=one["text"]) for one in told["responses"])
        item = Item(
            id=told["item"]["id"],
            prompt=told["item"]["prompt"],
            responses=responses,
            messages=tuple(told["item"]["messages"]),
        )
        return Asked(told["answer"], kind, item)

    def answer(self, asked: Asked, value: str | float, by: RaterKind = "person") -> None:
        """Answer a question. Sent twice, it counts once."""
        body = {
            "answer": asked.answer,
            "item": asked.item.id,
            "kind": asked.kind,
            "responses": asked.shown,
            "value": value,
            "by": by,
        }
        _said(self._http.post("/api/answers", json=body, headers={"X-CSRF-Token": self._csrf}))


@contextmanager
def logged_in(url: str, token: str) -> Iterator[FeedbackClient]:
    """A client while the block lasts.

    Args:
        url: of the server, such as http://127.0.0.1:8765.
        token: of a rater's account.

    Raises:
        UserError: nobody listens there, or nobody has this token; in the block, what the server refuses.
    """
    try:
        import httpx
    except ImportError as error:
        raise missing_extra("httpx", "feedback", "a client of the feedback server") from error
    try:
        secure = url.startswith("https:")  # or certificates would be read for nothing, at each login
        with httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False, verify=secure) as http:
            told = _said(http.post("/login", json={"token": token}))
            yield FeedbackClient(http, told["rater"], told["csrf"])
    except httpx.HTTPError as error:
        raise UserError(f"{url}: the feedback server does not answer: {one_line(error)}") from error


def _said(reply: httpx.Response) -> Any:
    """What a reply holds; a refusal becomes an error."""
    if reply.is_success:
        return reply.json()
    try:
        why = reply.json()["error"]
    except (ValueError, LookupError, TypeError):
        why = reply.reason_phrase
    raise UserError(f"{reply.url}: {reply.status_code}: {why}")
