"""What every request passes before anything reads it, and what every reply carries."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@/]+))(?::\d+)?")
SAFE = ("GET", "HEAD", "OPTIONS")
LONGEST_BODY = {"/api/events": 1 << 20}
LONGEST_OTHER_BODY = 1 << 17
"""Bytes of a request: an edit of a long response, escaped, fits in."""


class JSON(Response):
    """JSON in ASCII: models may say lone surrogates, for which UTF-8 has no bytes."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSON:
    """A reply that says what is wrong."""
    return JSON({"error": message}, status_code=status, headers=dict(headers or {}))


class Guards:
    """Puts the security headers on every reply; refuses foreign hosts, foreign pages and long bodies.

    - Host must be a name of this server: a page elsewhere whose name leads here has another (DNS rebinding).
    - What changes something must come from a page of this server (Origin, Sec-Fetch-Site), as JSON, which
      forms elsewhere cannot send. Programs send no Origin, which is fine.

    Args:
        app: what is guarded.
        hosts: names of this server, without port.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            return

        begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refused = _foreign(scope["method"], Headers(scope=scope), self.hosts)
        body = b"" if refused else await _body(scope["path"], receive)
        if refused or body is None:
            await (refused or refusal(413, "the request is too long"))(scope, receive, send_guarded)
        else:
            try:
                await self.app(scope, _replayed(body, receive), send_guarded)
            except Exception:  # ours; whoever started the server sees it, whoever asked does not
                logging.getLogger("uvicorn.error").exception("%s %s", scope["method"], scope["path"])
                if not begun:
                    await refusal(500, "the server has made a mistake; its terminal says which")(
                        scope, receive, send_guarded
                    )


def _foreign(method: str, headers: Headers, hosts: tuple[str, ...]) -> Response | None:
    host = headers.get("host", "")
    if _name_of(host) not in hosts:
        return refusal(421, "this server does not have that name; see feedback.hosts")
    if method in SAFE:
        return None
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
    if (origin is not None and origin.partition("://")[2] != host) or site not in ("same-origin", "none"):
        return refusal(403, "the request comes from another page")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if method == "POST" and kind != "application/json":
        return refusal(415, "expected application/json")
    return None


def _name_of(host: str) -> str:
    """The name in a Host header, without its port; nothing where there is no such name.

    >>> _name_of("localhost:8765"), _name_of("[::1]:8765"), _name_of("[::1].example.org")
    ('localhost', '::1', '')
    """
    found = HOST.fullmatch(host)
    return "" if found is None else (found[1] or found[2]).lower()


async def _body(path: str, receive: Receive) -> bytes | None:
    """All of a request's body; None as soon as it is longer than any honest one."""
    limit, body, more = LONGEST_BODY.get(path, LONGEST_OTHER_BODY), b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message.get("body", b"")
        more = bool(message.get("more_body"))
        if len(body) > limit:
            return None
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once, then whatever comes: the client's leaving."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
