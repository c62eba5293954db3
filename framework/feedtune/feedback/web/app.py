"""The application: the page and its API over a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from feedtune.errors import UserError
from feedtune.feedback.storage.store import FeedbackStore
from feedtune.feedback.web import api, pages
from feedtune.feedback.web.addresses import LOOPBACK
from feedtune.feedback.web.desk import Desk, Worth
from feedtune.feedback.web.guards import Guards, refusal
from feedtune.feedback.web.limits import Limiter
from feedtune.feedback.web.tickets import Tickets
from feedtune.feedback.web.visitors import Door
from feedtune.text.visible import plain

REQUESTS_A_MINUTE = 300
TRIES_A_MINUTE = 10  # of tokens that are none, from one address


def create_app(
    store: FeedbackStore,
    *,
    worth: Worth | None = None,
    overlap: float = 0.2,
    requests_a_minute: int | None = REQUESTS_A_MINUTE,
    hosts: Sequence[str] = LOOPBACK,
    secure: bool = False,
) -> FastAPI:
    """An ASGI application.

    Args:
        store: what is asked and answered, and who may log in.
        worth: chooses among questions; None: chance does.
        overlap: how often a question is asked that others have answered already (see `choosing.choose`).
        requests_a_minute: of one account; None: any number.
        hosts: names under which the server is reached.
        secure: the session's cookie goes over HTTPS only, which something in front of this server speaks.
    """
    # No pages about the API: they would load their scripts from elsewhere.
    app = FastAPI(title="feedtune", openapi_url=None)
    tickets = Tickets(store.secret())
    app.state.door = Door(store, tickets, Limiter(requests_a_minute), Limiter(TRIES_A_MINUTE))
    app.state.desk = Desk(store, tickets, worth, overlap)
    app.state.secure = secure
    app.include_router(api.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Guards, hosts=tuple(hosts))
    return app


async def _user_error(request: Request, error: Exception) -> Response:
    return refusal(400, plain(str(error)))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(error.status_code, str(error.detail), error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """What is wrong with a body or a query: where, and why; not what was sent."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return refusal(422, plain(f"{where[:200]}: {first['msg']}"))
