"""What docs/api.md lists is there, documented, as it was, and enough for feedtune's own plugins."""

from __future__ import annotations

import ast
import difflib
import inspect
from pathlib import Path

import feedtune
from public_api import ROOT, SIGNATURES, listed, signatures, thing

LISTED = listed()


def test_the_list_is_read() -> None:
    assert len(LISTED) > 130
    assert len(set(LISTED)) == len(LISTED)
    assert {name for module, name in LISTED if module == "feedtune"} == set(feedtune.__all__)


def test_each_name_says_what_it_is() -> None:
    things = {f"{module}.{name}": thing(module, name) for module, name in LISTED}
    described = {path: one for path, one in things.items() if inspect.isclass(one) or inspect.isroutine(one)}
    assert len(described) > 120
    assert [path for path, one in described.items() if len((one.__doc__ or "").split()) < 3] == []


def test_signatures_are_as_they_were() -> None:
    before, now = SIGNATURES.read_text(encoding="utf-8").splitlines(), signatures()
    changes = [
        line for line in difflib.unified_diff(before, now, n=0, lineterm="") if line[:3] not in ("---", "+++")
    ]
    assert before == now, (
        "the public API has changed; if that is meant: python tests/public_api.py, a line in CHANGELOG.md, "
        "and what was there stays for another release (docs/api.md)\n" + "\n".join(changes)
    )


def imports_of(file: Path) -> set[tuple[str, str]]:
    """(module, name) of what a file takes from feedtune."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    taken = [
        (getattr(node, "module", None) or alias.name, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    return {(module, name) for module, name in taken if module.split(".")[0] == "feedtune"}


def test_our_own_plugins_need_nothing_else() -> None:
    files = sorted((ROOT / "plugins").rglob("*.py"))
    assert len(files) > 50
    beyond = {
        f"{file.relative_to(ROOT)}: {module}.{name}"
        for file in files
        for module, name in imports_of(file)
        if (module, name) not in LISTED
    }
    assert beyond == set()
