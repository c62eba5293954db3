"""One request to a service and its answer: what is worth another try, and no secret in any message."""

from __future__ import annotations

import json
import math
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from feedtune.errors import UserError, missing_extra, one_line
from feedtune.rewards import SourceFailure

if TYPE_CHECKING:
    import httpx

Post = Callable[[Mapping[str, Any]], Any]
"""Sends a body and gives what was answered, both as values that JSON can say."""

MAY_PASS = frozenset({408, 425, 429})
"""Answers below 500 that are about this moment, not about what was asked."""

MOST_BYTES = 64 * 2**20
"""Of an answer."""

SHOWN = 200
"""Letters of an answer in a message."""


class Exchange:
    """Posts JSON to one URL.

    Args:
        label: what messages call it.
        group: key of its options, such as "reward", for messages.
        needed_by: the choice that needs the packages, such as "reward=http".
        url: where to.
        timeout: seconds from a request to the end of its answer.
        connections: most at a time.
        token_env: name of the environment variable with the token, if one is needed.

    Raises:
        UserError: httpx is not installed, or there is no such variable.
    """

    def __init__(
        self,
        *,
        label: str,
        group: str,
        needed_by: str,
        url: str,
        timeout: float,
        connections: int,
        token_env: str | None,
    ) -> None:
        self.label, self.group = label, group
        self.url, self.timeout, self.connections = url, timeout, connections
        self.token_env = token_env
        try:
            import httpx
        except ImportError as error:
            raise missing_extra("httpx", "remote", needed_by) from error
        try:
            httpx.URL(url)
        except httpx.InvalidURL as error:
            raise UserError(f"{group}.url: {one_line(error)}") from error
        # Reading the certificates takes longer than a request: once, and only where they are needed.
        self._verify: ssl.SSLContext | bool = (
            httpx.create_ssl_context() if url.startswith("https:") else False
        )
        self._token()

    @contextmanager
    def connected(self) -> Iterator[Post]:
        """A function that posts; several threads may call it."""
        import httpx

        limits = httpx.Limits(max_connections=self.connections)
        with httpx.Client(verify=self._verify, limits=limits, timeout=self.timeout) as client:
            yield partial(self._post, client)

    def _post(self, client: httpx.Client, said: Mapping[str, Any]) -> Any:
        import httpx

        body = json.dumps(said).encode()  # ASCII: lone surrogates pass as escapes
        token = self._token()
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        deadline = time.monotonic() + self.timeout
        try:
            with client.stream("POST", self.url, content=body, headers=headers) as response:
                status, asked = response.status_code, response.headers.get("Retry-After")
                text = self._read(response, deadline)
        except httpx.TimeoutException as error:
            raise self._late() from error
        except httpx.RequestError as error:
            raise SourceFailure(f"{self.label}: no answer: {_without(one_line(error), token)}") from error
        self._check_status(status, asked, _without(text, token))
        return self._parsed(_without(text, token))

    def _read(self, response: httpx.Response, deadline: float) -> str:
        """The answer, if it comes in time: a timeout of httpx begins anew with each byte."""
        found = bytearray()
        for chunk in response.iter_bytes():
            found += chunk
            if time.monotonic() > deadline:
                raise self._late()
            if len(found) > MOST_BYTES:
                raise SourceFailure(f"{self.label}: the answer is longer than {MOST_BYTES} bytes")
        return found.decode("utf-8", errors="replace")

    def _late(self) -> SourceFailure:
        return SourceFailure(f"{self.label}: no answer within {self.group}.timeout={self.timeout:g} seconds")

    def _check_status(self, status: int, asked: str | None, text: str) -> None:
        if 200 <= status < 300:
            return
        said = f"{self.label} answered {status}{_phrase(status)}{_first_line(text)}"
        if status in MAY_PASS or status >= 500:
            raise SourceFailure(said, seconds_asked_for(asked))
        raise UserError(said)

    def _parsed(self, text: str) -> Any:
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise SourceFailure(
                f"{self.label} answered what is no JSON ({error}){_first_line(text)}"
            ) from error

    def _token(self) -> str | None:
        """The secret, read anew each time; what is wrong with it is said without it.

        Raises:
            UserError: the variable is not set, or cannot stand in a header.
        """
        if self.token_env is None:
            return None
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.token_env):  # it may be the token itself
            raise UserError(
                f"{self.group}.token_env: expected the NAME of an environment variable, in capitals, "
                "never the token itself"
            )
        token = os.environ.get(self.token_env)
        if not token:
            raise UserError(f"{self.group}.token_env: the environment variable {self.token_env} is not set")
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise UserError(
                f"{self.group}.token_env: the value of {self.token_env} holds blanks or signs that are not "
                "ASCII"
            )
        return token


def seconds_asked_for(header: str | None) -> float:
    """What a header Retry-After asks for: seconds or a date; 0 where it says nothing.

    >>> seconds_asked_for("30"), seconds_asked_for("Wed, 21 Oct 2015 07:28:00 GMT"), seconds_asked_for("soon")
    (30.0, 0.0, 0.0)
    """
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        aware = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (aware - datetime.now(UTC)).total_seconds()
    return 0.0 if math.isnan(seconds) else max(0.0, seconds)


def shown(text: str) -> str:
    """The beginning of what a server said, without signs that could do something to a terminal.

    >>> shown("no \\x1b[31msuch key")
    'no [31msuch key'
    """
    plain = "".join(letter for letter in text if letter.isprintable())
    return plain if len(plain) <= SHOWN else plain[:SHOWN] + "..."


def _first_line(text: str) -> str:
    line = next((line for line in text.splitlines() if line.strip()), "")
    return f": {shown(line.strip())}" if line else ""


def _phrase(status: int) -> str:
    return f" {HTTPStatus(status).phrase}" if status in {known.value for known in HTTPStatus} else ""


def _without(text: str, token: str | None) -> str:
    return text.replace(token, "***") if token else text


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is none; null says that there is no opinion")
