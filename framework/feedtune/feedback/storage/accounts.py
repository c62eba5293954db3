"""Who may answer: pseudonyms with a token each, of which only a hash is kept."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Literal

Role = Literal["rater", "admin", "logger"]
"""A rater answers; a logger sends events; an admin does both and sees progress."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """Somebody who may log in."""

    pseudonym: str
    role: Role
    name: str | None = None  # what the admin calls them; encrypted as texts are
    time: str  # UTC, ISO 8601, when it was made


def new_pseudonym(role: Role) -> str:
    """A name that says nothing about who has it.

    >>> new_pseudonym("rater").startswith("rater-")
    True
    """
    return f"{role}-{secrets.token_hex(4)}"


def new_token() -> str:
    """What logs in: 256 random bits, so that a plain hash of it keeps it.

    >>> len(new_token())
    43
    """
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What the store keeps of a token; any text has one.

    >>> token_hash("a") == token_hash("b")
    False
    """
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
