"""Who asks: found by a session's cookie, or by a token in the request of a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import HTTPException, Request

from feedtune.feedback.storage.accounts import Account, Role
from feedtune.feedback.storage.store import FeedbackStore
from feedtune.feedback.web.guards import SAFE
from feedtune.feedback.web.limits import Limiter
from feedtune.feedback.web.tickets import Tickets

CSRF_HEADER = "x-csrf-token"


@dataclass(frozen=True)
class Visitor:
    """Somebody who has logged in."""

    account: Account
    csrf: str = ""  # what the page sends along; nothing where there is no cookie


class Door:
    """Lets in who may come in.

    Args:
        store: the accounts.
        tickets: the sessions.
        requests: how often an account may ask.
        tries: how often an address may try tokens that are none.
    """

    def __init__(self, store: FeedbackStore, tickets: Tickets, requests: Limiter, tries: Limiter) -> None:
        self.store, self.tickets, self.requests, self.tries = store, tickets, requests, tries
        self._ended = set[str]()  # cookies of sessions that were logged out of

    def visitor(self, request: Request) -> Visitor | None:
        """Who asks; None: nobody that is known.

        Raises:
            HTTPException: too often, or without the CSRF token.
        """
        header = request.headers.get("authorization", "")
        found = self._by_token(request, header) if header else self._by_cookie(request)
        if found is not None:
            refuse_if_waiting(self.requests.wait(found.account.pseudonym))
        return found

    def account(self, request: Request, token: str) -> Account:
        """Who has this token.

        Raises:
            HTTPException: nobody, or this address has tried too many that are none.
        """
        address = request.client.host if request.client else ""
        refuse_if_waiting(self.tries.wait(address, cost=0))
        account = self.store.account(token)
        if account is None:
            self.tries.wait(address)
            raise HTTPException(401, "nobody has this token")
        return account

    def end(self, request: Request) -> None:
        """Log out: this cookie lets nobody in any more, whoever kept it, as long as this server runs."""
        self._ended = {cookie for cookie in self._ended if self.tickets.visitor(cookie)}  # others are over
        self._ended.add(request.cookies.get(cookie_name(request), ""))

    def _by_token(self, request: Request, header: str) -> Visitor:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            raise HTTPException(401, "expected 'Authorization: Bearer TOKEN'")
        return Visitor(self.account(request, token.strip()))

    def _by_cookie(self, request: Request) -> Visitor | None:
        cookie = request.cookies.get(cookie_name(request), "")
        pseudonym = self.tickets.visitor(cookie) if cookie and cookie not in self._ended else None
        known = {one.pseudonym: one for one in self.store.accounts()} if pseudonym else {}
        if pseudonym is None or pseudonym not in known:  # or revoked since
            return None
        said = request.headers.get(CSRF_HEADER, "")
        if request.method not in SAFE and not self.tickets.holds(said, "csrf", cookie):
            raise HTTPException(403, "the CSRF token is missing or another session's; load the page again")
        return Visitor(known[pseudonym], self.tickets.csrf(cookie))


def door_of(request: Request) -> Door:
    """The application's own."""
    door: Door = request.app.state.door
    return door


def allow(*roles: Role) -> Callable[[Request], Visitor]:
    """A dependency of an endpoint: the visitor, whose account has one of these roles."""

    def visitor(request: Request) -> Visitor:
        found = door_of(request).visitor(request)
        if found is None:
            raise HTTPException(401, "log in first")
        if found.account.role not in roles:
            raise HTTPException(403, f"this is for accounts of the role {' or '.join(roles)}")
        return found

    return visitor


def cookie_name(request: Request) -> str:
    """One for each port: browsers give the cookies of a host to all its ports."""
    return f"feedtune-{request.url.port or 0}"


def refuse_if_waiting(seconds: float) -> None:
    """Raise what says when to come back, if it is not now."""
    if seconds > 0:
        raise HTTPException(429, "too many requests", {"Retry-After": str(int(seconds) + 1)})
