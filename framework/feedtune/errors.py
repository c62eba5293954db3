"""The one error that users see: a message of one or two lines, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """Something the user can mend. The command line prints the message alone and exits with 2.

    The message names the key or file, the value that was found, what was expected and, where there is
    one, the nearest right thing.

    >>> raise UserError("optimizer.lr: expected a number, got 'abc'")
    Traceback (most recent call last):
    feedtune.errors.UserError: optimizer.lr: expected a number, got 'abc'
    """


class Interrupted(SystemExit):
    """A signal has ended the command: the command line prints the message and exits with the code.

    >>> raise Interrupted("stopped by SIGTERM", code=143)
    Traceback (most recent call last):
    feedtune.errors.Interrupted: stopped by SIGTERM
    """

    code: int  # 128 and the number of the signal, as shells have it

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as " Did you mean 'ppo'?", or nothing where no known name is close.

    >>> nearest("pp0", ["ppo", "sft"])
    " Did you mean 'ppo'?"
    >>> nearest("zebra", ["ppo", "sft"])
    ''
    """
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def nearest_path(path: Path) -> str:
    """A hint at what lies in the same folder under a similar name, or nothing.

    >>> nearest_path(Path("nowhere/at/all"))
    ''
    """
    try:
        return nearest(str(path), map(str, path.parent.iterdir()))
    except OSError:  # there is no such folder, or nobody may look into it
        return ""


def one_line(error: object) -> str:
    """What an error says, its lines joined and its blanks single; never nothing.

    >>> one_line(ValueError("no\\n  such thing")), one_line(KeyError())
    ('no such thing', 'KeyError')
    """
    return " ".join(str(error).split()) or type(error).__name__


def missing_extra(package: str, extra: str, needed_by: str, *, distribution: str = "feedtune") -> UserError:
    """The error for an optional dependency that is not installed; it names the extra that brings it.

    Args:
        package: what cannot be imported.
        extra: of `distribution` that brings it.
        needed_by: the key or option that needs it.
        distribution: of the plugin that asks.

    >>> print(missing_extra("peft", "lora", "backbone.lora"))
    backbone.lora needs the package 'peft'. Install it with: pip install 'feedtune[lora]'
    """
    return UserError(
        f"{needed_by} needs the package '{package}'. Install it with: pip install '{distribution}[{extra}]'"
    )
