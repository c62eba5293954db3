"""Reading a command's arguments: what is wrong with them is one line, as every other mistake."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from typing import NoReturn

from feedtune.errors import UserError, nearest

TRUST_HELP = "run and call what the folder names: reward.path, reward.url, classes of packages not trusted"
"""Of the flag of every command that reads a run folder."""


class Arguments(argparse.ArgumentParser):
    """A parser that raises where argparse would print its usage and exit.

    >>> Arguments(prog="feedtune plugins").read(["--jsn"])
    Traceback (most recent call last):
    feedtune.errors.UserError: --jsn: there is no such flag; see feedtune plugins --help
    """

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The arguments, with flags anywhere among them: before, between and after the others."""
        self._refuse_unknown(arguments)
        return self.parse_intermixed_args(list(arguments))

    def _refuse_unknown(self, arguments: Sequence[str]) -> None:
        """Name a flag that is none: argparse would first ask for what else is lacking."""
        for word in itertools.takewhile(lambda one: one != "--", arguments):
            name = word.partition("=")[0]
            known = [flag for flag in self._option_string_actions if flag.startswith(name)]
            if word.startswith("--") and " " not in word and not known:
                hint = nearest(name, self._option_string_actions).replace(" Did", " (did").replace("?", "?)")
                self.error(f"{name}: there is no such flag{hint}")

    def error(self, message: str) -> NoReturn:
        """Called by argparse with what is wrong."""
        raise UserError(f"{message}; see {self.prog} --help")
