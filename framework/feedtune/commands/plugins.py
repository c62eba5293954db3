"""`feedtune plugins`: every group and option, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence

from feedtune.commands.arguments import Arguments
from feedtune.config.discovery import providers


def main(arguments: Sequence[str]) -> int:
    """Print a table, or JSON."""
    parser = Arguments(prog="feedtune plugins", description=__doc__)
    parser.add_argument("--json", action="store_true", help="for scripts")
    given = parser.read(arguments)
    rows = [
        {"group": group, "option": option, "distribution": p.distribution, "version": p.version}
        for p in providers()
        for group, option in p.options()
    ]
    problems = [f"{p.distribution} {p.version}: {p.problem}" for p in providers() if p.problem]
    rows.sort(key=lambda row: (row["group"], row["option"]))
    if given.json:
        print(json.dumps({"options": rows, "problems": problems}, indent=2))
        return 0
    _print_table(rows)
    for problem in problems:
        print(f"broken plugin: {problem}")
    return 0


def _print_table(rows: Sequence[dict[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("group", "option", "distribution", "version", box=None)
    for row in rows:
        table.add_row(*row.values())
    Console(width=None).print(table)
