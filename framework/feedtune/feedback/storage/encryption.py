"""Texts at rest: as they are, or encrypted by a key that only an environment variable holds."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from feedtune.errors import UserError, missing_extra

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KEY_LENGTH = 44  # characters of a Fernet key, 32 bytes in URL-safe base64


class Cipher:
    """Hides texts by Fernet (AES-128 in CBC mode with HMAC-SHA256); without a key it leaves them as they are.

    Args:
        key: the name of the environment variable that holds the key; None: nothing is hidden.
        name: key of the config that it comes from, for messages.

    Raises:
        UserError: there is no such variable, it holds no Fernet key, or `cryptography` is not installed.

    >>> Cipher(None).show(Cipher(None).hide("plain"))
    'plain'
    """

    def __init__(self, key: str | None, name: str = "feedback.key") -> None:
        self.variable, self.name = key, name
        self._fernet = None if key is None else _fernet(key, name)

    @property
    def hides(self) -> bool:
        """Whether there is a key."""
        return self._fernet is not None

    def hide(self, text: str) -> str:
        """The text as it may lie on the disk. `text` must be one that UTF-8 has bytes for."""
        return text if self._fernet is None else self._fernet.encrypt(text.encode()).decode()

    def show(self, hidden: str) -> str | None:
        """The text again; None: it was hidden by another key, or changed since."""
        if self._fernet is None:
            return hidden
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet.decrypt(hidden.encode()).decode()
        except (InvalidToken, UnicodeError):
            return None


def new_key() -> str:
    """A fresh key, for an environment variable.

    >>> len(new_key())
    44
    """
    return _library("feedtune feedback key").generate_key().decode()


def _fernet(variable: str, name: str) -> Fernet:
    if not NAME.fullmatch(variable) or len(variable) == KEY_LENGTH:
        raise UserError(
            f"{name}: expected the name of an environment variable such as FEEDBACK_KEY; "
            "a key itself, or anything else, does not belong there"
        )
    library, value = _library(name), os.environ.get(variable, "").strip()
    if not value:
        raise UserError(
            f"{name}: the environment variable {variable} is not set; it has to hold the key that the store "
            f"was made with. For a new store: export {variable}=$(feedtune feedback key)"
        )
    try:
        return library(value)
    except ValueError as error:
        raise UserError(
            f"{name}: the environment variable {variable} holds no key (32 bytes in URL-safe base64); "
            "make one with: feedtune feedback key"
        ) from error


def _library(needed_by: str) -> type[Fernet]:
    try:
        from cryptography.fernet import Fernet
    except ModuleNotFoundError as error:
        raise missing_extra("cryptography", "feedback", needed_by) from error
    return Fernet
