"""`feedtune plugins`: every group and option, where it comes from, and what is wrong with a plugin.

It imports the plugins (not feedtune's own) to see whether their classes are there, as no other command does
for plugins that are not chosen. It exits with 1 if there is a problem, as `pip check` does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from feedtune.commands.arguments import Arguments
from feedtune.config.discovery import Provider, providers
from feedtune.config.local_plugins import KEY, adopt
from feedtune.config.option_files import class_of
from feedtune.config.plugin_problems import Problem, broken_classes, problems
from feedtune.errors import UserError
from feedtune.text.visible import plain

HEADER = ("group", "option", "class", "distribution", "version", "feedtune")
"""Columns, and keys in JSON; the last: the versions of feedtune that the plugin asks for."""


def main(arguments: Sequence[str]) -> int:
    """Print a table, or JSON; 1 if there are problems, else 0."""
    parser = Arguments(prog="feedtune plugins", description=__doc__)
    parser.add_argument("overrides", nargs="*", metavar="plugins_path=FOLDER", help="a folder of plugins too")
    parser.add_argument("--json", action="store_true", help="for scripts")
    given = parser.read(arguments)
    _adopt(given.overrides)
    rows = [_row(p, group, option) for p in providers() for group, option in p.options()]
    rows.sort(key=lambda row: (row["group"], row["option"]))
    found = [*problems(), *broken_classes()]
    if given.json:
        print(json.dumps({"options": rows, "problems": list(map(_as_json, found))}, indent=2))
    else:
        _print_table(rows)
        for problem in found:
            print(plain(f"problem: {problem}"))
    return 1 if found else 0


def _adopt(overrides: Sequence[str]) -> None:
    for line in overrides:
        if not line.startswith(f"{KEY}="):
            raise UserError(f"'{line}': expected {KEY}=FOLDER; see feedtune plugins --help")
    adopt(overrides)


def _row(provider: Provider, group: str, option: str) -> dict[str, str]:
    try:
        target = class_of(provider, group, option) or ""
    except UserError:  # among the problems
        target = ""
    cells = (group, option, target, provider.distribution, provider.version, provider.asks)
    return dict(zip(HEADER, cells, strict=True))


def _as_json(problem: Problem) -> dict[str, str | list[str]]:
    whose = problem.provider
    return {
        "plugin": whose.name,
        "distribution": whose.distribution,
        "version": whose.version,
        "options": [f"{group}={option}" for group, option in problem.options],
        "problem": problem.what,
        "remedy": problem.remedy,
    }


def _print_table(rows: Sequence[dict[str, str]]) -> None:
    """Columns as wide as what stands in them: nothing is cut, also where the output is no terminal."""
    lines = [HEADER, *(tuple(map(plain, row.values())) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
