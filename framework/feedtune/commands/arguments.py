"""Reading a command's arguments: what is wrong with them is one line, as every other mistake."""

from __future__ import annotations

import argparse
from typing import NoReturn

from feedtune.errors import UserError


class Arguments(argparse.ArgumentParser):
    """A parser that raises where argparse would print its usage and exit.

    >>> Arguments(prog="feedtune plugins").parse_args(["--jsn"])
    Traceback (most recent call last):
    feedtune.errors.UserError: unrecognized arguments: --jsn; see feedtune plugins --help
    """

    def error(self, message: str) -> NoReturn:
        """Called by argparse with what is wrong."""
        raise UserError(f"{message}; see {self.prog} --help")
