"""What programs ask, the page's own script among them: JSON in, JSON out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from feedtune.errors import UserError
from feedtune.feedback.events.reading import event_of
from feedtune.feedback.records import Kind
from feedtune.feedback.results.summary import results_of
from feedtune.feedback.web.bodies import AnswerBody, Events, Login
from feedtune.feedback.web.desk import ASKED, Desk
from feedtune.feedback.web.guards import JSON
from feedtune.feedback.web.tickets import SESSION_SECONDS
from feedtune.feedback.web.visitors import Visitor, allow, cookie_name, door_of

Anybody = Annotated[Visitor, Depends(allow("rater", "admin", "logger"))]
Rater = Annotated[Visitor, Depends(allow("rater", "admin"))]
Logger = Annotated[Visitor, Depends(allow("logger", "admin"))]
Admin = Annotated[Visitor, Depends(allow("admin"))]
Skipped = Annotated[list[str], Query(max_length=200)]

router = APIRouter(default_response_class=JSON)


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


@router.post("/login")
def log_in(request: Request, body: Login) -> JSON:
    """A session: its cookie, and the CSRF token that goes with it."""
    door = door_of(request)
    account = door.account(request, body.token)
    cookie = door.tickets.session(account.pseudonym)
    reply = JSON({"rater": account.pseudonym, "role": account.role, "csrf": door.tickets.csrf(cookie)})
    reply.set_cookie(
        cookie_name(request),
        cookie,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.app.state.secure,
    )
    return reply


@router.post("/logout")
def log_out(request: Request, visitor: Anybody) -> JSON:
    """The end of the session."""
    door_of(request).end(request)
    reply = JSON({})
    reply.delete_cookie(cookie_name(request))
    return reply


@router.get("/api/next")
def next_question(request: Request, visitor: Rater, kind: Kind = "comparison", skip: Skipped = []) -> JSON:  # noqa: B006
    """The next question of a kind, with the one-time id of its answer."""
    if kind not in ASKED:
        raise UserError(f"kind: expected {', '.join(ASKED)}, got '{kind}'")
    return JSON(_desk(request).next(visitor.account.pseudonym, kind, skip))


@router.get("/api/ticket")
def comment_ticket(request: Request, visitor: Rater, item: str, response: str) -> JSON:
    """The one-time id of a comment on a response."""
    return JSON({"answer": _desk(request).ticket(visitor.account.pseudonym, item, response)})


@router.post("/api/answers")
def answer(request: Request, visitor: Rater, body: AnswerBody) -> JSON:
    """Keep an answer. The reply comes when it is on the disk; sent again, it is not new."""
    return JSON({"new": _desk(request).take(visitor.account.pseudonym, body.said())})


@router.delete("/api/answers/{name}")
def retract(request: Request, visitor: Rater, name: str) -> JSON:
    """Take back an answer of one's own."""
    return JSON({"retracted": door_of(request).store.retract(name, visitor.account.pseudonym)})


@router.get("/api/progress")
def progress(request: Request, visitor: Rater) -> JSON:
    """How much is done: of what one may see."""
    return JSON(_desk(request).progress(visitor.account))


@router.get("/api/results")
def results(request: Request, visitor: Admin) -> JSON:
    """Progress, raters, agreement and leaderboards."""
    return JSON(results_of(door_of(request).store).as_json())


@router.get("/api/mine")
def own_answers(request: Request, visitor: Rater) -> JSON:
    """Everything that the store has of this rater."""
    account = visitor.account
    answers = door_of(request).store.answers(rater=account.pseudonym)
    return JSON({"account": asdict(account), "answers": [asdict(one) for one in answers]})


@router.delete("/api/mine")
def forget_me(request: Request, visitor: Rater) -> JSON:
    """Delete everything of this rater, the login too."""
    reply = JSON({"deleted": door_of(request).store.forget(visitor.account.pseudonym)})
    reply.delete_cookie(cookie_name(request))
    return reply


@router.post("/api/events")
def log(request: Request, visitor: Logger, body: Events) -> JSON:
    """Keep what happened to responses, and the responses that are told with it."""
    store = door_of(request).store
    told = [event_of(one, f"events[{n}]") for n, one in enumerate(body.events)]
    store.add({one.item.id: one.item for one in told if one.item is not None}.values())
    return JSON({"new": store.log(one.event for one in told)})
