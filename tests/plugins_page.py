"""docs/plugins.md as something to follow: the files that it names, and its commands in their order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"

_BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.S)


def files() -> dict[str, str]:
    """Texts by the paths that their blocks begin with."""
    found = {}
    for _, text in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        first, _, rest = text.partition("\n")
        if re.fullmatch(r"# (my_plugins|ours|questions)/\S+", first):
            found[first.removeprefix("# ")] = rest
    return found


def write(folder: Path, *, below: str) -> None:
    """The files of one of its folders."""
    chosen = {name: text for name, text in files().items() if name.startswith(f"{below}/")}
    assert chosen, below
    for name, text in chosen.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def commands() -> list[list[str]]:
    """Every line of its shell blocks, as the shell would split it."""
    found = _BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    blocks = [text for language, text in found if language == "bash"]
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
