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
    parser = Arguments(
        prog="feedtune plugins",
        description=__doc__,
        usage="feedtune plugins [plugins_path=FOLDER] [--json]",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="plugins_path=FOLDER",
        help="a folder of plugins, at most one",
    )
    parser.add_argument("--json", action="store_true", help="for scripts")
    given = parser.read(arguments)
    _adopt(given.overrides)
    own, others = [[row for p in providers() if p.own is own for row in _rows(p)] for own in (True, False)]
    rows = sorted(own, key=_place) + sorted(others, key=_place)
    found = [*problems(), *broken_classes()]
    if given.json:
        print(json.dumps({"options": rows, "problems": list(map(_as_json, found))}, indent=2))
    else:
        _print_table(rows, len(own))
        for problem in found:
            print(plain(f"problem: {problem}"))
    return 1 if found else 0


def _adopt(overrides: Sequence[str]) -> None:
    for line in overrides:
        if not line.startswith(f"{KEY}="):
            raise UserError(f"'{line}': expected {KEY}=FOLDER; see feedtune plugins --help")
    adopt(overrides)


def _rows(provider: Provider) -> list[dict[str, str]]:
    return [_row(provider, group, option) for group, option in provider.options()]


def _place(row: dict[str, str]) -> tuple[str, str]:
    return row["group"], row["option"]


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


def _print_table(rows: Sequence[dict[str, str]], own: int) -> None:
    """Columns as wide as what stands in them: nothing is cut, also where the output is no terminal.

    Below feedtune's `own` rows, and set apart from them, are those of plugins: a long table ends with them.
    """
    lines = [HEADER, *(tuple(map(plain, row.values())) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for number, line in enumerate(lines):
        if 1 < number == own + 1:
            print()
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
