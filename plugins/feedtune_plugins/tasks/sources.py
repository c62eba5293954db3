"""What tasks that read data share: finding files, naming columns, holding rows out for evaluation."""

from __future__ import annotations

import codecs
import glob
import json
import random
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NamedTuple

from feedtune.contracts import Row, Task
from feedtune.errors import UserError, nearest
from feedtune.text.conversation import check_row
from feedtune.text.pairs import explicit


class Located(NamedTuple):
    """A row and where it stands, as in "chat.jsonl:3"."""

    where: str
    row: Row


class SourceTask(Task):
    """A task whose rows are read from somewhere and, unless there is a second place, held out by a fraction.

    Rows that occur in both splits are left out of train. The rows' order is that of their source.

    Args:
        eval_fraction: the part of the distinct rows that is held out, where nothing else is given for it.
        seed: which rows those are.
        columns: new names for columns, as {prompt: question}: the column `question` becomes `prompt`.
        chat: make a chat of plain rows: the `prompt` is what a user says, the `reference` is kept.
    """

    def __init__(
        self,
        *,
        eval_fraction: float = 0.05,
        seed: int = 0,
        columns: Mapping[str, str] | None = None,
        chat: bool = False,
    ) -> None:
        if not 0 <= eval_fraction < 1:
            raise UserError(f"task.eval_fraction: expected 0 up to but not 1, got {eval_fraction}")
        self.eval_fraction, self.seed = eval_fraction, seed
        self.columns, self.chat = dict(columns or {}), chat

    @abstractmethod
    def read(self, split: str) -> Iterator[Located] | None:
        """The rows of "train", or of "eval" where those have a place of their own, else None."""

    def load(self, split: str) -> Sequence[Row]:
        """Rows of "train" or "eval"; the source is read once."""
        if split not in ("train", "eval"):
            raise ValueError(f"expected the split 'train' or 'eval', got {split!r}")
        train, held_out = self._splits
        return train if split == "train" else held_out

    @cached_property
    def _splits(self) -> tuple[list[Row], list[Row]]:
        rows = list(self._rows(self.read("train") or iter(())))
        if not rows:
            raise UserError("task.path: there is not one row")
        apart = self.read("eval")
        held_out = self._hold_out(rows) if apart is None else list(self._rows(apart))
        known = {_key(row) for row in held_out}
        train = [row for row in rows if _key(row) not in known]
        if not train:
            raise UserError(
                f"task.path: nothing is left to train on, all rows are among the {len(held_out)} held out"
            )
        return train, held_out

    def _hold_out(self, rows: Sequence[Row]) -> list[Row]:
        distinct = list({_key(row): row for row in rows}.values())
        if not self.eval_fraction:
            return []
        if len(distinct) < 2:
            raise UserError(
                f"task.eval_fraction: one distinct row cannot be split{self.why_so_few()}; "
                "give task.eval_path, or task.eval_fraction=0 for no evaluation"
            )
        count = min(max(1, round(self.eval_fraction * len(distinct))), len(distinct) - 1)
        chosen = sorted(random.Random(self.seed).sample(range(len(distinct)), count))
        return [distinct[i] for i in chosen]

    def why_so_few(self) -> str:
        """What a message adds where there are too few rows to hold one out: how there may be more."""
        return ""

    def _rows(self, located: Iterable[Located]) -> Iterator[Row]:
        for where, row in located:
            named = self._chat(explicit(renamed(row, self.columns, where), where))
            check_row(named, where)
            yield named

    def _chat(self, row: Row) -> Row:
        if not self.chat or not isinstance(row.get("prompt"), str):
            return row
        rest = {name: value for name, value in row.items() if name != "prompt"}
        return {"messages": [{"role": "user", "content": row["prompt"]}], **rest}


class FileTask(SourceTask):
    """A task whose rows are in files.

    Args:
        path: must be given: a file, a folder (its files of the right kind, subfolders too) or a pattern.
        eval_path: the same for evaluation. None: a fraction of the rows is held out.
        eval_fraction: see `SourceTask`, as for the others.
    """

    suffixes: ClassVar[tuple[str, ...]]  # what files of this kind are called

    def __init__(
        self,
        *,
        path: str | None = None,
        eval_path: str | None = None,
        eval_fraction: float = 0.05,
        seed: int = 0,
        columns: Mapping[str, str] | None = None,
        chat: bool = False,
    ) -> None:
        super().__init__(eval_fraction=eval_fraction, seed=seed, columns=columns, chat=chat)
        self.path, self.eval_path = path, eval_path
        self.require()

    def require(self) -> None:
        """Import what reading needs beyond the base dependencies, or name the extra that brings it."""

    @abstractmethod
    def read_file(self, file: Path) -> Iterator[Located]:
        """The rows of one file."""

    def read(self, split: str) -> Iterator[Located] | None:
        if split == "eval" and self.eval_path is None:
            return None
        key, path = ("task.path", self.path) if split == "train" else ("task.eval_path", self.eval_path)
        return self._read_files(find_files(path, self.suffixes, key), key)

    def _read_files(self, files: Sequence[Path], key: str) -> Iterator[Located]:
        for file in files:
            located = self.read_file(file)
            first = next(located, None)
            if first is None:
                raise UserError(f"{key}: the file '{file}' is empty, it has no row")
            yield first
            yield from located


def find_files(path: str | None, suffixes: Sequence[str], key: str = "task.path") -> list[Path]:
    """The files that a path means, in order of their names.

    Raises:
        UserError: naming `key`; there is no such file, or nothing in the folder or pattern fits.
    """
    if not path:
        raise UserError(
            f"{key}: not given; name a file, a folder or a pattern, as in {key}=data{suffixes[0]}"
        )
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    kinds = ", ".join(suffixes)
    if place.is_dir():
        found = sorted(file for file in place.rglob("*") if file.suffix in suffixes and file.is_file())
        if not found:
            raise UserError(f"{key}: the folder '{path}' has no file of the kind {kinds}")
        _check_inside(found, place, key)
        return found
    if glob.has_magic(path):
        fitting = glob.glob(str(place), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        found = sorted(file for file in map(Path, fitting) if file.is_file())
        if not found:
            raise UserError(f"{key}: no file fits the pattern '{path}'")
        return found
    siblings = [str(file) for file in place.parent.iterdir()] if place.parent.is_dir() else []
    raise UserError(f"{key}: no file or folder '{path}'.{nearest(str(place), siblings)}")


def _check_inside(files: Iterable[Path], folder: Path, key: str) -> None:
    """Refuse links that lead out of a folder, which may have come as an archive from elsewhere."""
    for file in files:
        if not file.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"{key}: '{file}' is a link that leads out of the folder, to {file.resolve()}; "
                "if you mean that, name it itself"
            )


def read_text(file: Path) -> str:
    """A file's text: UTF-8, with or without byte-order mark; every line break becomes a newline.

    Raises:
        UserError: naming the line that is not UTF-8.
    """
    data = file.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{file}:{line}: not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def renamed(row: Row, columns: Mapping[str, str], where: str) -> Row:
    """The row with its columns under new names; one that is to be renamed must be there.

    >>> renamed({"question": "Why?", "id": 7}, {"prompt": "question"}, "qa.csv:2")
    {'id': 7, 'prompt': 'Why?'}
    """
    for column in columns.values():
        if column not in row:
            found = ", ".join(f"'{name}'" for name in row) or "none"
            raise UserError(f"{where}: no column '{column}', found {found}.{nearest(column, map(str, row))}")
    taken = {*columns.values(), *columns}
    kept = {name: value for name, value in row.items() if name not in taken}
    return {**kept, **{ours: row[theirs] for ours, theirs in columns.items()}}


def _key(row: Row) -> str:
    """What two equal rows have in common."""
    return json.dumps(row, sort_keys=True, default=str)
