"""Data sets of the package `datasets`: from the Hugging Face hub or from disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from yaml import YAMLError, safe_load  # type: ignore[import-untyped]

from feedtune.errors import UserError, missing_extra, nearest
from feedtune.hub import fetching, not_found
from feedtune_plugins.tasks.sources import Located, SourceTask

_SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves in a folder
_CARDS = ("README.md", ".huggingface.yaml")  # where a folder says which of its files are the data


class HuggingFace(SourceTask):
    """Rows of a data set.

    Args:
        path: must be given: a name on the hub, a folder that `save_to_disk` wrote, or a folder of data files.
        config: which of the data set's configurations; None: its only one.
        train_split: the split to train on.
        eval_split: the split to evaluate on. None: a fraction of the train split is held out.
        limit: rows of each split to take, from the first; None: all.
        eval_fraction: see `SourceTask`, as for the others.

    Raises:
        UserError: the package is missing, or there is no such data set, configuration or split.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        config: str | None = None,
        train_split: str = "train",
        eval_split: str | None = None,
        limit: int | None = None,
        eval_fraction: float = 0.05,
        seed: int = 0,
        columns: Mapping[str, str] | None = None,
        chat: bool = False,
    ) -> None:
        super().__init__(eval_fraction=eval_fraction, seed=seed, columns=columns, chat=chat)
        if limit is not None and limit < 1:
            raise UserError(f"task.limit: expected null or a number from 1, got {limit}")
        try:
            import datasets
        except ModuleNotFoundError as error:
            raise missing_extra("datasets", "data", "task=datasets") from error
        self._datasets = datasets
        self.path, self.config, self.limit = path, config, limit
        self.train_split, self.eval_split = train_split, eval_split

    def read(self, split: str) -> Iterator[Located] | None:
        name = self.train_split if split == "train" else self.eval_split
        return None if name is None else self._read(name, f"task.{split}_split")

    def _read(self, split: str, key: str) -> Iterator[Located]:
        splits = self._load()
        if split not in splits:
            found = ", ".join(f"'{name}'" for name in splits)
            raise UserError(
                f"{key}: '{self.path}' has no split '{split}', found {found}.{nearest(split, splits)}"
            )
        for number, row in enumerate(islice(splits[split], self.limit), start=1):
            yield Located(f"{self.path}, {split} row {number}", row)

    def _load(self) -> dict[str, Any]:
        """The splits by name; what was saved as one set is its own "train"."""
        if not self.path:
            raise UserError("task.path: not given; name a data set of the hub, or a folder")
        folder = Path(self.path).expanduser()
        try:
            if any((folder / name).is_file() for name in _SAVED):
                found = self._datasets.load_from_disk(str(folder))
            else:
                place = str(folder) if folder.is_dir() else self.path
                check_card(folder)
                with fetching(place):
                    found = self._datasets.load_dataset(place, self.config)
        except UserError:
            raise
        except Exception as error:  # each of its loaders raises its own kinds
            reason = not_found(str(folder), error)
            raise UserError(f"task.path: the data set '{self.path}' cannot be loaded: {reason}") from error
        return dict(found) if isinstance(found, dict) else {"train": found}


def check_card(folder: Path) -> None:
    """Refuse a folder whose own card takes files from elsewhere for its data: it may be downloaded.

    Raises:
        UserError: naming the card and the file.
    """
    for card in (folder / name for name in _CARDS):
        if not card.is_file():
            continue
        text = card.read_text(encoding="utf-8", errors="replace")
        head = text.split("---")[1] if text.startswith("---") and text.count("---") > 1 else ""
        try:
            said = safe_load(head if card.suffix == ".md" else text)
        except YAMLError:
            continue  # the loader tells what is wrong with it
        configs = said.get("configs") if isinstance(said, dict) else None
        for path in _paths_in(configs):
            inside = (folder / path).resolve().is_relative_to(folder.resolve())
            if not inside or "://" in path or "::" in path or path.startswith("~"):
                raise UserError(f"task.path: {card} names data that is not in its folder: '{path}'")


def _paths_in(value: Any, named: bool = False) -> Iterator[str]:
    """Every path of the data files and folders of a card's configurations."""
    if isinstance(value, str) and named:
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _paths_in(
                inner, name in ("data_files", "data_dir", "path") or (named and name != "split")
            )
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from _paths_in(inner, named)
