"""`feedtune new-plugin NAME --kind KIND`: a plugin project of its own, tested and ready to be published."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from feedtune.commands.arguments import Arguments
from feedtune.config.discovery import options_of
from feedtune.errors import UserError, nearest
from feedtune.templates import KINDS, rendered

LONGEST = 30
"""Characters of a name: with more, the lines of the project would have to be broken elsewhere."""

TAKEN = ("conf", "tests")
"""Names that folders of the project have already."""


def main(arguments: Sequence[str]) -> int:
    """Write the project; say what was written and what to do next."""
    parser = Arguments(prog="feedtune new-plugin", description=__doc__)
    parser.add_argument("name", metavar="NAME", help="of the distribution, its Python package and its option")
    parser.add_argument("--kind", required=True, metavar="KIND", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("--into", metavar="FOLDER", help="where; empty or not there yet (default: ./NAME)")
    given = parser.read(arguments)
    check_kind(given.kind)
    check_name(given.name, given.kind)
    folder = Path(given.into or given.name)
    check_empty(folder)
    files = rendered(given.name, given.kind, version("feedtune"))
    write(folder, files)
    print(said(folder, files, given.name, given.kind))
    return 0


def check_kind(kind: str) -> None:
    """Refuse what is no kind of plugin."""
    if kind not in KINDS:
        raise UserError(f"--kind: expected one of {', '.join(KINDS)}, got '{kind}'.{nearest(kind, KINDS)}")


def check_name(name: str, kind: str) -> None:
    """Refuse a name that cannot be imported, or that something else has.

    >>> check_name("tests", "reward")
    Traceback (most recent call last):
    feedtune.errors.UserError: NAME: 'tests' is what a folder of the project is called; choose ...
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > LONGEST:
        better = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789")[:LONGEST].strip("_")
        hint = f" Did you mean '{better}'?" if better else ""
        raise UserError(
            f"NAME: '{name}' is no name for a Python package: expected a lower-case letter, then lower-case "
            f"letters, digits and '_', {LONGEST} characters at most.{hint}"
        )
    other = f"choose another one, such as '{name}_{kind}'"
    if keyword.iskeyword(name):
        raise UserError(f"NAME: '{name}' is a word of Python's own; {other}")
    if name in TAKEN:
        raise UserError(f"NAME: '{name}' is what a folder of the project is called; {other}")
    if name in options_of(kind):
        raise UserError(f"NAME: {kind}={name} is an option already (see feedtune plugins); {other}")
    if _can_be_imported(name):
        raise UserError(f"NAME: there is a Python module '{name}' already, and one hides the other; {other}")


def _can_be_imported(name: str) -> bool:
    """Whether a module has this name. A plain folder beside us, which could be imported too, is none."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def check_empty(folder: Path) -> None:
    """Refuse a folder that holds anything but a fresh git repository."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--into: {folder} is a file; expected a folder that is empty or not there yet")
    entries = folder.iterdir() if folder.exists() else []
    found = sorted(entry.name for entry in entries if entry.name != ".git")
    if found:
        few = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise UserError(
            f"--into: {folder} is not empty ({few}), and nothing of yours shall be overwritten; "
            "choose a folder that is empty or not there yet"
        )


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts by their paths below the folder."""
    for name, text in files.items():
        file = folder / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"--into: {file} cannot be written: {error.strerror}") from error


def said(folder: Path, files: Mapping[str, str], name: str, kind: str) -> str:
    """What was written, and the next three commands."""
    listed = "\n".join(f"  {file}" for file in sorted(files))
    return (
        f"A plugin project for {kind}={name}, in {folder}:\n{listed}\n\nNext:\n"
        f"  cd {shlex.quote(str(folder))} && pip install -e '.[test]'\n"
        f"  pytest && feedtune check {name}\n"
        f"  {KINDS[kind].try_it.format(name=name)}\n"
    ).rstrip()
