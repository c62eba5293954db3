"""`feedtune feedback export DIR OUT`: answers as JSON lines, for other programs and as a backup.

OUT is a folder, which gets a file for each kind of answer, or a file that ends in .jsonl for one kind.
`feedtune feedback import` reads all of them again, and nothing is lost but logins. The export of an encrypted
store is not encrypted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from feedtune.commands.arguments import Arguments
from feedtune.commands.feedback.settings import opened
from feedtune.errors import UserError, nearest
from feedtune.feedback.exchange.exporting import FILES, exported, has_both_forms, write_export
from feedtune.feedback.exchange.lines import write_lines
from feedtune.text.visible import plain


def main(arguments: Sequence[str]) -> int:
    """Write, and say how many rows went where."""
    given = opened("export", __doc__, arguments, {"out": "a folder, or FILE.jsonl"}, flags=_flags, runs=False)
    out, rater = Path(given.words.out), given.words.rater
    if rater is not None:
        known = [one.rater for one in given.store.raters()]
        if rater not in known:
            raise UserError(
                f"--rater: {given.store.path} has no answers of '{rater}'.{nearest(rater, known)}"
            )
    single = out.suffix == ".jsonl"
    if not single and out.suffix and not out.is_dir():
        raise UserError(f"OUT: expected a folder or a name that ends in .jsonl, got {out}")
    only = given.words.only or (["comparisons"] if single else list(FILES))
    if single and len(only) > 1:
        raise UserError(f"--only: a file holds one of them; name a folder for {', '.join(only)}")
    rows = exported(given.store, only, rater)
    if single and has_both_forms(rows):
        raise UserError(f"OUT: there are plain prompts and conversations, so name a folder: got {out}")
    written = {out: write_lines(out, rows[only[0]])} if single else write_export(rows, out)
    for path, count in written.items():
        print(plain(f"{path}: {count} {'row' if count == 1 else 'rows'}"))
    if not written:
        print("nothing to export: the store has no such rows")
    return 0


def _flags(parser: Arguments) -> None:
    rows = "; ".join(f"{name} ({text})" for name, text in FILES.items())
    parser.add_argument(
        "--only", metavar="KIND", action="append", choices=list(FILES), help=f"again for each: {rows}"
    )
    parser.add_argument("--rater", metavar="PSEUDONYM", help="only what this one has said")
