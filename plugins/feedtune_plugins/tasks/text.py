"""Plain text files: something to read and imitate, or beginnings to continue."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from feedtune.contracts import Row
from feedtune.errors import UserError, nearest
from feedtune_plugins.tasks.sources import FileTask, Located, read_text

Unit = Literal["paragraph", "line", "file"]

_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")


class Text(FileTask):
    """Rows `{"text": ...}` from text files, or `{"prompt": ..., "reference": ...}` that continue one another.

    Args:
        unit: what a row is: a "paragraph" (blank lines lie between), a "line" or a whole "file".
        prompt_words: cut each row after so many words: what precedes is the `prompt`, what follows, with the
            space before it, the `reference`. Rows without anything to follow are left out. None: no cut.
        path: see `FileTask`, as for the others.
    """

    suffixes = (".txt", ".md")

    def __init__(
        self,
        *,
        path: str | None = None,
        eval_path: str | None = None,
        eval_fraction: float = 0.05,
        seed: int = 0,
        unit: Unit = "paragraph",
        prompt_words: int | None = None,
    ) -> None:
        super().__init__(path=path, eval_path=eval_path, eval_fraction=eval_fraction, seed=seed)
        if unit not in get_args(Unit):
            raise UserError(
                f"task.unit: expected paragraph, line or file, got '{unit}'.{nearest(unit, get_args(Unit))}"
            )
        if prompt_words is not None and prompt_words < 1:
            raise UserError(f"task.prompt_words: expected null or a number from 1, got {prompt_words}")
        self.unit, self.prompt_words = unit, prompt_words

    def read_file(self, file: Path) -> Iterator[Located]:
        for line, text in _units(read_text(file), self.unit):
            row = self._row(text)
            if row is not None:
                yield Located(f"{file}:{line}", row)

    def why_so_few(self) -> str:
        if self.unit == "line":
            return f", the only line of '{self.path}'"
        blank = " without blank lines" if self.unit == "paragraph" else ""
        return f", as '{self.path}' is one {self.unit}{blank}: task.unit=line makes a row of each line"

    def _row(self, text: str) -> Row | None:
        if self.prompt_words is None:
            return {"text": text}
        begun = re.match(rf"\S+(?:\s+\S+){{{self.prompt_words - 1}}}(?=\s)", text)
        return {"prompt": begun[0], "reference": text[begun.end() :]} if begun else None


def _units(text: str, unit: Unit) -> Iterator[tuple[int, str]]:
    """Each unit that is not blank, without the whitespace around it, and the line on which it begins."""
    pieces: Iterator[tuple[int, str]]
    if unit == "line":
        pieces = enumerate(text.split("\n"), start=1)
    elif unit == "file":
        pieces = iter([(1, text)])
    else:
        pieces = _paragraphs(text)
    return ((line, piece.strip()) for line, piece in pieces if piece.strip())


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    at = 0
    for gap in [*_BLANK_LINES.finditer(text), None]:
        end = gap.start() if gap else len(text)
        yield text.count("\n", 0, at) + 1, text[at:end]
        at = gap.end() if gap else end
