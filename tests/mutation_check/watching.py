"""Which lines a test comes by: the watched file's own functions say so.

A tracer of Python's would slow down every call of every library too.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable
from pathlib import Path

from mutation_check.patching import put

_NOTE = "_mutation_check_came_by"


def watch(file: Path, note: Callable[[tuple[str, int]], object]) -> None:
    """From now on every statement in the file's functions gives `note` its file and line before it runs."""
    tree = ast.parse(file.read_text())
    for node in list(ast.walk(tree)):
        if not isinstance(node, ast.Module | ast.ClassDef):
            for block in (part for part in vars(node).values() if isinstance(part, list)):
                block[:] = [one for inner in block for one in _noted(inner, file)]
    setattr(builtins, _NOTE, note)
    put(compile(ast.fix_missing_locations(tree), str(file), "exec"), file)


def _noted(node: ast.AST, file: Path) -> list[ast.AST]:
    """A statement and the call that says that it comes; anything else, and a docstring, alone."""
    documents = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    if documents or not isinstance(node, ast.stmt):
        return [node]
    where = ast.Constant(value=(str(file), node.lineno))
    call = ast.Expr(ast.Call(ast.Name(_NOTE, ast.Load()), [where], []))
    return [ast.copy_location(call, node), node]
