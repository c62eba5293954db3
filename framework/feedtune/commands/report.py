"""`feedtune report DIR...`: one HTML page about a run, or several side by side."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from feedtune.commands.arguments import Arguments
from feedtune.errors import UserError, missing_extra
from feedtune.report import write_report


def read(argv: Sequence[str]) -> argparse.Namespace:
    """The command's `folders`, and `out`, the page to write.

    Raises:
        UserError: they are not what the command takes.
    """
    parser = Arguments(
        prog="feedtune report",
        description="Write one HTML page about a run, or several: numbers, curves, settings, samples.",
    )
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="run folder")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="default: DIR/report.html, or ./report.html for several"
    )
    given = parser.read(argv)
    given.out = given.out or (given.folders[0] if len(given.folders) == 1 else Path()) / "report.html"
    if given.out.suffix.lower() not in {".html", ".htm"}:
        raise UserError(f"--out: expected a name that ends in .html, got '{given.out}'")
    return given


def main(argv: Sequence[str]) -> int:
    """Write the report and print where it is."""
    given = read(argv)
    print(write_report(given.folders, given.out))
    return 0


def report_line(run_dirs: Sequence[Path], out: Path) -> str:
    """Write the report where it can be drawn, and say where it is; or that it was not written, and why."""
    if importlib.util.find_spec("matplotlib") is None:
        return f"report: {out.name} was not written; {missing_extra('matplotlib', 'report', 'it')}"
    return f"report: {write_report(run_dirs, out)}"
