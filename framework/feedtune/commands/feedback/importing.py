"""`feedtune feedback import DIR FILE...`: take in answers, items and events from JSON lines.

FILE is an export of `feedtune feedback export` (a folder, too), or a data set of others: prompt, chosen,
rejected; prompt, completion, rating; prompt, completion, reference; prompt, responses. What is known is
taken once: importing a file again changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from feedtune.commands.arguments import Arguments
from feedtune.commands.feedback.settings import opened
from feedtune.feedback.exchange.importing import read_files
from feedtune.text.visible import plain


def main(arguments: Sequence[str]) -> int:
    """Take them in, and say how many are new."""
    given = opened("import", __doc__, arguments, flags=_flags, must_exist=False, runs=False)
    found = read_files(given.words.files)
    items, answers, events = found.put(given.store)
    many, happened = len(found.answers), len(found.events)
    print(f"new: {items} items, {answers} of {many} answers, {events} of {happened} events")
    print(plain(f"store: {given.store.path}"))
    return 0


def _flags(parser: Arguments) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="JSON lines, or a folder of them")
