"""`feedtune feedback key`: a fresh key for an encrypted store, for an environment variable."""

from __future__ import annotations

from collections.abc import Sequence

from feedtune.commands.arguments import Arguments
from feedtune.feedback.storage.encryption import new_key


def main(arguments: Sequence[str]) -> int:
    """Print it; it is kept nowhere: without it the store cannot be read again."""
    Arguments(prog="feedtune feedback key", description=__doc__).read(arguments)
    print(new_key())
    return 0
