"""`feedtune report DIR...`: one HTML page about a run, or several side by side."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from feedtune.errors import UserError
from feedtune.report import write_report


def main(argv: Sequence[str]) -> int:
    """Write the report and print where it is."""
    parser = argparse.ArgumentParser(
        prog="feedtune report",
        description="Write one HTML page about a run, or several side by side: numbers, curves, samples.",
    )
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="run folder")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="default: DIR/report.html, or ./report.html for several"
    )
    given = parser.parse_args(argv)
    folders: list[Path] = given.folders
    out: Path = given.out or (folders[0] if len(folders) == 1 else Path()) / "report.html"
    if out.suffix.lower() not in {".html", ".htm"}:
        raise UserError(f"--out: expected a name that ends in .html, got '{out}'")
    print(write_report(folders, out))
    return 0
