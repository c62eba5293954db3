"""Data that names files: a folder, which may be downloaded, leads nowhere but into itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from feedtune.errors import UserError
from feedtune_plugins.tasks.hub import HuggingFace, check_card
from feedtune_plugins.tasks.jsonl import Jsonl
from feedtune_plugins.tasks.text import Text

ROWS = "".join(json.dumps({"prompt": f"{n}=", "reference": str(n)}) + "\n" for n in range(4))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of data beside a file that is nobody's business."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text(ROWS)
    (tmp_path / "private.txt").write_text("canary\n\nof mine\n")
    (tmp_path / "private.jsonl").write_text(ROWS.replace("=", "canary"))
    return tmp_path


@pytest.mark.parametrize(("task", "suffix"), [(Text, "txt"), (Jsonl, "jsonl")])
def test_a_link_out_of_a_folder_is_refused(task: type, suffix: str, place: Path) -> None:
    link = place / "data" / f"more.{suffix}"
    for target in (Path("..") / f"private.{suffix}", place / f"private.{suffix}"):
        link.symlink_to(target)
        with pytest.raises(
            UserError, match=rf"task\.path: '.*more\.{suffix}' is a link that leads out"
        ) as caught:
            task(path=str(place / "data")).load("train")
        assert "canary" not in str(caught.value)
        link.unlink()


def test_links_within_and_links_that_the_user_names(place: Path) -> None:
    (place / "data" / "again.jsonl").symlink_to("rows.jsonl")
    (place / "link").symlink_to(place / "data")
    for path in ("data", "link", "data/again.jsonl", "data/../data", "link/*.jsonl"):
        rows = Jsonl(path=str(place / path), eval_fraction=0.25)
        assert len(rows.load("eval")) == 1
    (place / "data" / "more.jsonl").symlink_to(place / "private.jsonl")
    assert Jsonl(path=str(place / "data" / "more.jsonl"), eval_fraction=0).load("train")


def test_rows_name_files_without_any_being_opened(place: Path) -> None:
    row = {"prompt": "file:///etc/passwd", "reference": "../private.txt", "path": str(place / "private.txt")}
    (place / "data" / "rows.jsonl").write_text(json.dumps(row) + "\n")
    [found] = Jsonl(path=str(place / "data"), eval_fraction=0).load("train")
    assert found == row
    image = {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "file:///etc/passwd"}]}]
    }
    (place / "data" / "rows.jsonl").write_text(json.dumps(image) + "\n")
    with pytest.raises(UserError, match=r"a part of its content is 'image_url'; only text can be read"):
        Jsonl(path=str(place / "data"), eval_fraction=0).load("train")


@pytest.mark.parametrize(
    "files",
    [
        "PRIVATE",
        "../private.jsonl",
        ["rows.jsonl", "../private.jsonl"],
        {"train": "PRIVATE"},
        "~/x.jsonl",
        [{"split": "train", "path": "PRIVATE"}],
        [{"split": "train", "path": ["data/../../private.jsonl"]}],
        "https://example.com/x.jsonl",
        "zip://x.jsonl::../x.zip",
    ],
)
@pytest.mark.parametrize("card", ["README.md", ".huggingface.yaml"])
def test_a_card_that_names_files_from_elsewhere(files: Any, card: str, place: Path) -> None:
    text = json.dumps({"configs": [{"config_name": "default", "data_files": files}]})
    text = text.replace("PRIVATE", str(place / "private.jsonl"))
    (place / "data" / card).write_text(f"---\n{text}\n---\n# Data\n" if card == "README.md" else text)
    with pytest.raises(UserError, match="names data that is not in its folder"):
        HuggingFace(path=str(place / "data"), eval_fraction=0).load("train")


@pytest.mark.parametrize(
    "files", ["rows.jsonl", "*.jsonl", {"train": ["rows.jsonl"]}, [{"split": "train", "path": "rows.jsonl"}]]
)
def test_a_card_that_names_its_own(files: Any, place: Path) -> None:
    text = json.dumps({"license": "mit", "configs": [{"config_name": "../x", "data_files": files}]})
    (place / "data" / "README.md").write_text(f"---\n{text}\n---\n")
    check_card(place / "data")
    (place / "data" / "README.md").write_text("---\n: [\n---\nno card")
    check_card(place / "data")
