"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from feedtune.durable import append_file, flush_folder, replace_file
from feedtune.errors import UserError


def test_a_file_is_replaced_in_one_stroke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the name changes hands, the new content is on the disk and the old one still under the name."""
    path = tmp_path / "metrics.csv"
    path.write_text("old")
    seen: list[str] = []
    replace, fsync = Path.replace, os.fsync

    def flushed(handle: int) -> None:
        fsync(handle)
        seen.append("flushed")

    def replaced(source: Path, target: Path) -> Path:
        seen.extend([source.read_text(), target.read_text()])
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", replaced)
    replace_file(path, "new\r\n")
    assert seen == ["flushed", "new\n", "old"]  # read_text reads any line end as \n
    assert path.read_bytes() == b"new\r\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, r"No space left on device; .* are free there: make room$"),
        (errno.EIO, "Input/output error$"),
    ],
)
def test_what_cannot_be_written_is_as_it_was(
    number: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "metrics.csv"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(UserError, match=rf"metrics\.csv: cannot be written: {says}"):
        replace_file(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_lone_surrogate_is_read_back_as_it_was(tmp_path: Path) -> None:
    """UTF-8 has no bytes for it, JSON has an escape."""
    record = {"response": "a\ud800ü"}
    for number, write in enumerate((replace_file, append_file)):
        path = tmp_path / f"{number}.jsonl"
        write(path, json.dumps(record, ensure_ascii=False) + "\n")
        assert path.read_bytes() == b'{"response": "a\\ud800' + "ü".encode() + b'"}\n'
        assert json.loads(path.read_text(encoding="utf-8")) == record


FULL = """
import resource, sys
from pathlib import Path
from feedtune.durable import append_file
from feedtune.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
try:
    append_file(Path(sys.argv[1]), "x" * 100)
except UserError as error:
    print(error)
"""


def test_no_room_for_samples_is_said(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith(f"{path}: cannot be written: File too large; ")
    assert done.stdout.endswith("there is a limit: see `ulimit -f`\n")


@pytest.mark.parametrize(
    ("number", "raises"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)]
)
def test_a_file_system_need_not_know_how_to_flush_folders(
    number: int, raises: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    if raises:
        with pytest.raises(OSError, match="Input/output"):
            flush_folder(tmp_path)
    else:
        flush_folder(tmp_path)
