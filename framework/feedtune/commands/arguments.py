"""Reading a command's arguments: what is wrong with them is one line, as every other mistake."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from feedtune.errors import UserError

TRUST_HELP = "run and call what the folder names: reward.path, reward.url, classes of packages not trusted"
"""Of the flag of every command that reads a run folder."""


class Arguments(argparse.ArgumentParser):
    """A parser that raises where argparse would print its usage and exit.

    >>> Arguments(prog="feedtune plugins").read(["--jsn"])
    Traceback (most recent call last):
    feedtune.errors.UserError: unrecognized arguments: --jsn; see feedtune plugins --help
    """

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The arguments, with flags anywhere among them: before, between and after the others."""
        return self.parse_intermixed_args(list(arguments))

    def error(self, message: str) -> NoReturn:
        """Called by argparse with what is wrong."""
        raise UserError(f"{message}; see {self.prog} --help")
