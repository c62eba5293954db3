"""Checkpoint folders on disk: whole or not there, and any damage noticed. Nothing here trains."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feedtune.checkpoints import listed, newest, read_manifest, verified
from feedtune.checkpoints.store import MANIFEST, STATE, DamagedError, Draft, remove, step_name
from feedtune.errors import UserError

FILES = {STATE: bytes(range(256)) * 8, "tokenizer/tokenizer.json": b'{"a": 1}\n', "tokenizer/empty": b""}
FACTS = {"step": 3, "metrics": {"eval/reward": 0.1, "half": -1e-9, "unknown": None}}


def write(run: Path, name: str = "step-00000003", files: dict[str, bytes] = FILES) -> Path:
    draft = Draft(run)
    for path, content in files.items():
        draft.add(path, content)
    return draft.publish(name, {**FACTS, "step": int(name.split("-")[1])})


def names(run: Path) -> list[str]:
    """Everything under checkpoints/, hidden things too."""
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_what_is_written_is_there_with_its_digests(tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert folder == tmp_path / "checkpoints" / "step-00000003"
    assert names(tmp_path) == ["step-00000003"]
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    manifest = verified(folder)
    assert {**manifest, **FACTS} == manifest
    assert manifest["files"] == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in FILES.items()
    }


def test_nothing_bears_the_name_until_all_is_written(tmp_path: Path) -> None:
    draft = Draft(tmp_path)
    draft.add(STATE, b"state")
    assert listed(tmp_path) == []
    assert [name.startswith(".partial-") for name in names(tmp_path)] == [True]
    draft.discard()
    assert names(tmp_path) == []


def test_every_byte_is_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of the calls: each file, the folders that hold them, the rename, the folders above it."""
    calls: list[str] = []
    rename = Path.rename

    def fsync(handle: int) -> None:
        calls.append(Path(f"/proc/self/fd/{handle}").readlink().name)

    def renamed(path: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    write(tmp_path / "run")
    at = calls.index("rename")
    before = {call if not call.startswith(".partial-") else "folder" for call in calls[:at]}
    assert before == {STATE, "tokenizer.json", "empty", MANIFEST, "folder", "tokenizer"}
    assert calls[at + 1 :] == ["checkpoints", "run"]


def test_a_name_that_is_taken_gets_a_number_and_is_the_newer_one(tmp_path: Path) -> None:
    first, second, later = write(tmp_path), write(tmp_path), write(tmp_path, "step-00000010")
    assert second.name == "step-00000003-2"
    assert listed(tmp_path) == [first, second, later]
    remove(later)
    assert newest(tmp_path) == second / STATE


def test_a_checkpoint_may_take_the_place_of_another(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        draft = Draft(tmp_path)
        draft.add(STATE, content)
        folder = draft.publish("postmortem", {}, replace=True)
    assert (folder / STATE).read_bytes() == b"second"
    assert names(tmp_path) == ["postmortem"]
    assert newest(tmp_path) is None  # nobody goes on from it


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    """Steps of more than eight digits too: as text 10^8 would come before 99,999,999."""
    folders = [write(tmp_path, step_name(step)) for step in (2, 99_999_999, 100_000_000)]
    assert listed(tmp_path) == folders


def test_half_of_a_checkpoint_is_removed_by_the_next(tmp_path: Path) -> None:
    Draft(tmp_path).add(STATE, b"killed while this was written")
    assert len(names(tmp_path)) == 1
    write(tmp_path)
    assert names(tmp_path) == ["step-00000003"]


def test_a_removed_checkpoint_loses_its_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path)
    monkeypatch.setattr(
        shutil, "rmtree", lambda path, ignore_errors: None
    )  # killed before the first file goes
    remove(folder)
    assert listed(tmp_path) == []
    assert [name.startswith(".partial-") for name in names(tmp_path)] == [True]


# Damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def unreadable(path: Path) -> None:
    """As after a fault of the disk (rights would not stop root): nobody can open a link to itself."""
    path.unlink()
    path.symlink_to(path)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "state cut off": (lambda run: cut(run / STATE), "state.ckpt has 2047 bytes where 2048 were written"),
    "state flipped": (
        lambda run: flip(run / STATE),
        "state.ckpt is damaged: its sha256 is not the manifest's",
    ),
    "state missing": (lambda run: (run / STATE).unlink(), "state.ckpt is missing"),
    "state a folder": (
        lambda run: [(run / STATE).unlink(), (run / STATE).mkdir()][1],
        "state.ckpt is missing",
    ),
    "state a loop": (lambda run: unreadable(run / STATE), "state.ckpt is missing"),
    "tokenizer flipped": (
        lambda run: flip(run / "tokenizer/tokenizer.json"),
        "tokenizer/tokenizer.json is damaged",
    ),
    "manifest cut off": (lambda run: cut(run / MANIFEST), "manifest.json is damaged"),
    "manifest flipped": (lambda run: flip(run / MANIFEST), "manifest.json is damaged"),
    "manifest missing": (lambda run: (run / MANIFEST).unlink(), "manifest.json is missing"),
    "manifest empty": (lambda run: (run / MANIFEST).write_bytes(b""), "manifest.json is damaged"),
    "manifest a list": (lambda run: (run / MANIFEST).write_text("[]\n") and None, "manifest.json is damaged"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, words = DAMAGE[case]
    whole, broken = write(tmp_path, "step-00000003"), write(tmp_path, "step-00000004")
    damage(broken)
    with pytest.raises(DamagedError, match=r"step-00000004: "):
        verified(broken)
    assert newest(tmp_path) == whole / STATE
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"feedtune: {broken}: {words}")
    assert line.endswith("; trying step-00000003")
    assert newest(tmp_path, quiet=True) == whole / STATE
    assert capsys.readouterr().err == ""


def test_a_checkpoint_under_the_name_of_another_step_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of its files are whole; they are those of the step before."""
    whole, other = write(tmp_path), write(tmp_path, "step-00000004")
    shutil.rmtree(other)
    shutil.copytree(whole, other)
    assert newest(tmp_path) == whole / STATE
    assert capsys.readouterr().err == (
        f"feedtune: {other}: manifest.json is of step 3, not of 4; trying step-00000003\n"
    )


def test_a_manifest_without_a_step_is_refused(tmp_path: Path) -> None:
    draft = Draft(tmp_path)
    draft.add(STATE, b"state")
    folder = draft.publish("step-00000003", {})
    with pytest.raises(DamagedError, match=r"step-00000003: manifest\.json is of step None, not of 3$"):
        verified(folder)


def test_a_file_that_the_system_will_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path)
    opened = Path.open

    def failing(path: Path, *given: Any, **named: Any) -> Any:
        if path.name == STATE:
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, *given, **named)

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(DamagedError, match=r"state\.ckpt cannot be read: Input/output error$"):
        verified(folder)


def test_where_none_is_whole_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (3, 4):
        cut(write(tmp_path, step_name(step)) / STATE)
    with pytest.raises(
        UserError, match=r"checkpoints: none of its 2 checkpoints is whole: start the run again$"
    ):
        newest(tmp_path)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    (tmp_path / "checkpoints" / "step-three").mkdir(parents=True)
    assert newest(tmp_path) is None


def test_what_an_earlier_feedtune_wrote_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(UserError, match=r"last\.ckpt: written by a feedtune before 0\.1"):
        newest(tmp_path)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pristine"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_that_changes_is_noticed(data: st.DataObject, pristine: Path, tmp_path: Path) -> None:
    """One byte of one file replaced by any other, or the file cut anywhere, or longer."""
    folder = tmp_path / "step-00000003"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(pristine, folder)
    assert verified(folder)
    file = folder / data.draw(st.sampled_from([STATE, "tokenizer/tokenizer.json", MANIFEST]))
    content = file.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.integers(1, 255))
    changed = data.draw(
        st.sampled_from(
            [
                content[:at] + bytes([content[at] ^ other]) + content[at + 1 :],
                content[:at],
                content[:at] + bytes([other]) + content[at:],
            ]
        )
    )
    file.write_bytes(changed)
    with pytest.raises(DamagedError):
        verified(folder)


def forged(folder: Path, **other: Any) -> None:
    """A manifest whose own digest is right, by somebody who knows how it is made."""
    body = {**json.loads((folder / MANIFEST).read_text()), **other}
    body.pop("digest")
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    text = json.dumps({**body, "digest": digest}, sort_keys=True, indent=1) + "\n"
    (folder / MANIFEST).write_text(text)


def test_a_forged_manifest_is_taken_for_a_manifest(tmp_path: Path) -> None:
    """It protects against accidents; against people, nothing that a checkpoint holds is run."""
    folder = write(tmp_path)
    forged(folder, epoch=4)
    assert verified(folder)["epoch"] == 4


ENTRY = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}


@pytest.mark.parametrize(
    "other",
    [
        {"format": 2},
        {"files": None},
        {"files": []},
        {"files": {}},
        {"files": {STATE: None}},
        {"files": {STATE: {"bytes": "0", "sha256": ENTRY["sha256"]}}},
        {"files": {STATE: ENTRY, "../../outside": ENTRY}},
        {"files": {STATE: ENTRY, "/etc/hostname": ENTRY}},
    ],
)
def test_a_forged_manifest_leads_nowhere(other: dict[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder.parent.parent / "outside").touch()
    forged(folder, **other)
    with pytest.raises(DamagedError, match=r"manifest\.json (has format 2, not 1|does not say what files)"):
        read_manifest(folder)


# No room

FULL = """
import resource, sys
from pathlib import Path
from feedtune.checkpoints.store import Draft
from feedtune.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
draft = Draft(Path(sys.argv[1]))
with draft.open("state.ckpt") as sink:
    for _ in range(3):
        assert sink.write(b"x" * 100_000) == 100_000
draft.add("further", b"y" * 11)
try:
    draft.publish("step-00000004", {})
except UserError as error:
    print(error)
finally:
    draft.discard()
"""


@pytest.mark.parametrize("limit", [0, 250_000])
def test_a_full_disk_is_said_with_the_room_that_it_takes(limit: int, tmp_path: Path) -> None:
    """The limit on the size of a file: its error (EFBIG) comes where that of a full disk would."""
    whole = write(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said = done.stdout.strip()
    assert said.startswith(f"{tmp_path / 'checkpoints'}: cannot be written: File too large; it takes 300.")
    assert said.endswith("and there is a limit: see `ulimit -f`")
    assert names(tmp_path) == [whole.name]
    assert verified(whole)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_every_error_that_means_no_room_is_one(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path, target: Path) -> Path:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(
        UserError, match=r"step-00000003: cannot be written: .*; it takes 2\.\d kB, and .*(make room|ulimit)"
    ):
        write(tmp_path)


def test_another_error_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"checkpoints: cannot be written: (File exists|Not a directory)$"):
        write(tmp_path)
