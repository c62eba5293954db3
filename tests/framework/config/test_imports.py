"""The modules of `feedtune.config` import each other in one direction, also inside functions."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import feedtune.config

ROOM = Path(feedtune.config.__file__).parent


def imported_by(file: Path) -> set[str]:
    """The modules of the room that a module names in any import statement."""
    found = set[str]()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "feedtune.config":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("feedtune.config."):
            found.add(str(node.module).split(".")[2])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[2] for a in node.names if a.name.startswith("feedtune.config.")}
    return found


def test_no_two_modules_need_each_other() -> None:
    graph = {file.stem: imported_by(file) for file in ROOM.glob("*.py")}
    assert graph["compose"] >= {"hydra_errors", "hydra_setup"}  # so that the reading is known to work
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    assert order.index("hydra_errors") < order.index("compose")
