"""`feedtune feedback raters DIR`: who has answered, and how often."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from feedtune.commands.feedback.settings import opened
from feedtune.text.visible import plain


def main(arguments: Sequence[str]) -> int:
    """Print a table."""
    store = opened("raters", __doc__, arguments, runs=False).store
    table = Table("rater", "by", "answers")
    for one in store.raters():
        table.add_row(Text(plain(one.rater)), one.by, str(one.answers))
    Console().print(table)
    return 0
