"""Data sets of the package `datasets`, from disk: the loaders are those of the hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from feedtune.errors import UserError
from feedtune_plugins.tasks.hub import HuggingFace

ROWS = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(20)]
COLUMNS = {"prompt": "question", "reference": "answer"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def renamed(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [{"prompt": row["question"], "reference": row["answer"]} for row in rows]


@pytest.fixture
def saved(tmp_path: Path) -> str:
    splits = {"train": datasets.Dataset.from_list(ROWS[:15]), "test": datasets.Dataset.from_list(ROWS[15:])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    return str(tmp_path / "saved")


def test_splits_of_a_saved_folder(saved: str) -> None:
    task = HuggingFace(path=saved, eval_split="test", columns=COLUMNS)
    assert task.load("train") == renamed(ROWS[:15])
    assert task.load("eval") == renamed(ROWS[15:])


def test_a_fraction_is_held_out_where_there_is_one_split(saved: str) -> None:
    task = HuggingFace(path=saved, columns=COLUMNS, eval_fraction=0.2)
    train, held_out = task.load("train"), task.load("eval")
    assert (len(train), len(held_out)) == (12, 3)
    assert sorted([*train, *held_out], key=renamed(ROWS).index) == renamed(ROWS[:15])


def test_limit_takes_the_first_rows(saved: str) -> None:
    task = HuggingFace(path=saved, eval_split="test", columns=COLUMNS, limit=2)
    assert [*task.load("train"), *task.load("eval")] == renamed([*ROWS[:2], *ROWS[15:17]])


def test_one_saved_set_is_the_train_split(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS[:3]).save_to_disk(tmp_path / "one")
    task = HuggingFace(path=str(tmp_path / "one"), columns=COLUMNS, eval_fraction=0, chat=True)
    assert task.load("train")[0] == {"messages": [{"role": "user", "content": "0 + 0?"}], "reference": "0"}


def test_folder_of_data_files_goes_through_load_dataset(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:3]))
    task = HuggingFace(path=str(folder), columns=COLUMNS, eval_fraction=0)
    assert task.load("train") == renamed(ROWS[:3])


def test_what_is_not_there_is_named(saved: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"task\.eval_split: .* has no split 'tset', found 'train', 'test'\. Did you mean 'test'",
    ):
        HuggingFace(path=saved, eval_split="tset", columns=COLUMNS).load("train")
    with pytest.raises(UserError, match=r"train row 1: no column 'qestion', found .*Did you mean 'question'"):
        HuggingFace(path=saved, columns={"prompt": "qestion"}).load("train")
    with pytest.raises(UserError, match=r"task\.path: the data set '.*nothing' cannot be loaded"):
        HuggingFace(path=str(tmp_path / "nothing")).load("train")
    with pytest.raises(UserError, match=r"task\.path: not given"):
        HuggingFace().load("train")
    with pytest.raises(UserError, match=r"task\.limit: expected null or a number from 1, got 0"):
        HuggingFace(path=saved, limit=0)


def test_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"task=datasets needs .*pip install 'feedtune\[data\]'"):
        HuggingFace(path="a")
