"""docs/reliability.md names tests as proof: each of them exists, where the page says it does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"

NAMED = re.compile(r"(?P<file>[\w/]*test_\w+\.py)|\b(?P<test>test_\w+)")
PROGRAM = re.compile(r"python tests/([\w/]+\.py)")


def named(text: str) -> Iterator[tuple[str, str | None]]:
    """(file, test) in the order of the page; a test that is named alone is in the file before it."""
    file = ""
    for found in NAMED.finditer(text):
        file = found["file"] or file
        yield file, found["test"]


def defined_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_file_and_test_that_is_named_exists() -> None:
    found = list(named(PAGE.read_text()))
    assert len(found) > 100
    assert [file for file, _ in found if not (TESTS / file).is_file()] == []
    known = {file: defined_in(TESTS / file) for file, _ in found}
    assert [(file, test) for file, test in found if test and test not in known[file]] == []


def test_every_program_that_is_named_does() -> None:
    programs = PROGRAM.findall(PAGE.read_text())
    assert {"kills/soak.py", "fuzz/run.py", "installed.py"} <= set(programs)
    assert [path for path in programs if not (TESTS / path).is_file()] == []


def test_a_name_alone_belongs_to_the_file_before_it() -> None:
    assert list(named("`a/test_x.py::test_one`, `test_two`, then `b/test_y.py`: `test_three`")) == [
        ("a/test_x.py", None),
        ("a/test_x.py", "test_one"),
        ("a/test_x.py", "test_two"),
        ("b/test_y.py", None),
        ("b/test_y.py", "test_three"),
    ]
