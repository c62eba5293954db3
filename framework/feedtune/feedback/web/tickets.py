"""Seals: what the server hands out and must know again, without remembering it.

A seal is an HMAC under the store's own secret, so that sessions and questions outlive a restarted server.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Sequence

SESSION_SECONDS = 12 * 3600
SEAL = 32  # hexadecimal digits: 128 bits


class Tickets:
    """Makes and checks seals.

    Args:
        secret: at least 32 random bytes.

    >>> tickets = Tickets(bytes(32))
    >>> seal = tickets.seal("answer", "ann", "item")
    >>> tickets.holds(seal, "answer", "ann", "item"), tickets.holds(seal, "answer", "bob", "item")
    (True, False)
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def seal(self, purpose: str, *parts: str) -> str:
        """What only this server can say of these parts for this purpose."""
        said = json.dumps([purpose, *parts]).encode()
        return hmac.new(self._secret, said, hashlib.sha256).hexdigest()[:SEAL]

    def holds(self, seal: str, purpose: str, *parts: str) -> bool:
        """Whether `seal` was made of the same; takes equally long whatever it is."""
        return hmac.compare_digest(seal.encode("utf-8", "replace"), self.seal(purpose, *parts).encode())

    def session(self, pseudonym: str) -> str:
        """A session's cookie: who, until when (seconds since 1970), a random number, and the seal."""
        said = f"{pseudonym}.{int(time.time()) + SESSION_SECONDS}.{secrets.token_hex(8)}"
        return f"{said}.{self.seal('session', said)}"

    def visitor(self, cookie: str) -> str | None:
        """The pseudonym in a session's cookie; None where it is forged, damaged or over."""
        said, _, seal = cookie.rpartition(".")
        if not self.holds(seal, "session", said):
            return None
        pseudonym, expires, _ = said.rsplit(".", 2)
        return pseudonym if time.time() < int(expires) else None

    def csrf(self, cookie: str) -> str:
        """What requests that change something must bring beside the cookie: other sites cannot read it."""
        return self.seal("csrf", cookie)

    def ticket(self, rater: str, kind: str, item: str, responses: Sequence[str]) -> str:
        """A one-time answer id: for this rater, and this question as it was shown."""
        number = secrets.token_hex(8)
        return number + self.seal("answer", number, rater, kind, item, *responses)

    def is_ticket(self, ticket: str, rater: str, kind: str, item: str, responses: Sequence[str]) -> bool:
        """Whether this id was handed out for this."""
        number, seal = ticket[:-SEAL], ticket[-SEAL:]
        return self.holds(seal, "answer", number, rater, kind, item, *responses)
