"""Checkpoint folders on disk: how one is written, verified, found and removed, whatever is in it.

A folder is written as `checkpoints/.partial-*/` and renamed when all of it has reached the disk, and it is
renamed to such a name before it is removed: what bears a checkpoint's name is whole, or was damaged later.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from feedtune.durable import cannot_write, flush_folder
from feedtune.errors import UserError

FOLDER = "checkpoints"
STATE = "state.ckpt"
MANIFEST = "manifest.json"
PARTIAL = ".partial-"
FORMAT = 1

_STEP = re.compile(r"step-(\d{8,})(?:-(\d+))?")
_OLD = "last.ckpt"  # what feedtune wrote before there were manifests


class DamagedError(UserError):
    """A checkpoint is not what was written; the message names it and says why."""


def step_name(step: int) -> str:
    """The name of the checkpoint of an optimiser step; one that is taken gets `-2` and so on behind it.

    >>> step_name(12)
    'step-00000012'
    """
    return f"step-{step:08d}"


def listed(run: Path) -> list[Path]:
    """The checkpoints that a run can go on from, oldest first; they are not looked into."""
    found = []
    for folder in (run / FOLDER).glob("step-*"):
        match = _STEP.fullmatch(folder.name)
        if match:
            found.append((int(match[1]), int(match[2] or 1), folder))
    return [folder for _, _, folder in sorted(found)]


def newest(run: Path, *, quiet: bool = False) -> Path | None:
    """The state file of the newest checkpoint that is whole; None: the run has written none.

    Args:
        run: the run folder.
        quiet: do not name on stderr the damaged ones that are passed over.

    Raises:
        UserError: there are checkpoints, but none is whole.
    """
    found = listed(run)
    for position, folder in reversed(list(enumerate(found))):
        try:
            verified(folder)
        except DamagedError as damage:
            if not quiet:
                instead = f"; trying {found[position - 1].name}" if position else ""
                print(f"feedtune: {damage}{instead}", file=sys.stderr)
        else:
            return folder / STATE
    if found:
        raise UserError(f"{run / FOLDER}: none of its {len(found)} checkpoints is whole: start the run again")
    if (run / FOLDER / _OLD).exists():
        raise UserError(
            f"{run / FOLDER / _OLD}: written by a feedtune before 0.1, which this one cannot go on from: "
            "start the run again"
        )
    return None


def verified(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, each of whose files is as it was written, under the name that it got.

    Raises:
        DamagedError: a file is missing, cut off, changed or cannot be read, or all are those of another step.
    """
    manifest = read_manifest(folder)
    match = _STEP.fullmatch(folder.name)
    if match and manifest.get("step") != int(match[1]):
        raise DamagedError(f"{folder}: {MANIFEST} is of step {manifest.get('step')}, not of {int(match[1])}")
    for name, entry in manifest["files"].items():
        file = folder / name
        try:
            problem = _difference(file, entry)
        except OSError as error:
            problem = f"cannot be read: {error.strerror or error}"
        if problem:
            raise DamagedError(f"{folder}: {name} {problem}")
    return manifest


def _difference(file: Path, entry: Mapping[str, Any]) -> str | None:
    """What is wrong with a file of a checkpoint."""
    if not file.is_file():
        return "is missing"
    length = file.stat().st_size
    if length != entry["bytes"]:
        return f"has {length} bytes where {entry['bytes']} were written"
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    return None if found == entry["sha256"] else "is damaged: its sha256 is not the manifest's"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, to the byte as it was written; its files are not looked into.

    Raises:
        DamagedError: it is missing, damaged or of another format.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode("ascii") if path.is_file() else None
        manifest = json.loads(text) if text is not None else None
    except OSError as error:
        raise DamagedError(f"{folder}: {MANIFEST} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{folder}: {MANIFEST} is damaged") from error
    if text is None:
        raise DamagedError(f"{folder}: {MANIFEST} is missing")
    if not isinstance(manifest, dict) or _rendered(manifest) != text:
        raise DamagedError(f"{folder}: {MANIFEST} is damaged")
    if manifest.get("format") != FORMAT:
        raise DamagedError(f"{folder}: {MANIFEST} has format {manifest.get('format')!r}, not {FORMAT}")
    if not _lists_files(manifest.get("files")):
        raise DamagedError(f"{folder}: {MANIFEST} does not say what files there are")
    return manifest


def _rendered(manifest: Mapping[str, Any]) -> str:
    """The one text of a manifest, with a digest of the rest of it: no byte can be another."""
    body = {name: value for name, value in manifest.items() if name != "digest"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return json.dumps({**body, "digest": digest}, sort_keys=True, indent=1) + "\n"


def _lists_files(files: Any) -> bool:
    """Whether this is what a manifest says of its files; a path may not lead out of the folder."""
    if not (isinstance(files, dict) and STATE in files):
        return False
    entries = all(
        isinstance(e, dict) and isinstance(e.get("bytes"), int) and isinstance(e.get("sha256"), str)
        for e in files.values()
    )
    paths = [PurePosixPath(name) for name in files]
    return entries and not any(path.is_absolute() or ".." in path.parts for path in paths)


def remove(folder: Path) -> None:
    """Remove a checkpoint; killed in the middle of it, what is left does not bear its name."""
    with suppress(OSError):
        aside = folder.rename(_partial(folder.parent))
        shutil.rmtree(aside, ignore_errors=True)


def clear_partials(run: Path) -> None:
    """Remove what killed runs have left half written or half removed."""
    for folder in (run / FOLDER).glob(f"{PARTIAL}*"):
        shutil.rmtree(folder, ignore_errors=True)


class Draft:
    """A checkpoint that is being written; `publish` gives it its name.

    Errors of the system are kept until then, and what follows them is only counted: so all that takes part in
    writing goes its way to the end, and the message can say how much room there would have to be.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.bytes = 0
        self.error: OSError | None = None
        self.files: dict[str, dict[str, Any]] = {}
        self.folder = _partial(run / FOLDER)
        clear_partials(run)
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            self.error = error

    def add(self, name: str, content: bytes) -> None:
        """Write a whole file; `name` may lie in a folder."""
        with self.open(name) as sink:
            sink.write(content)

    def open(self, name: str) -> Sink:
        """A file to be written from front to back; a context manager."""
        return Sink(self, name)

    def publish(self, name: str, facts: Mapping[str, Any], *, replace: bool = False) -> Path:
        """Write the manifest, flush all to the disk, and give the checkpoint its name.

        Args:
            name: of the folder.
            facts: what the manifest says beside the files; plain values.
            replace: take the place of one of this name, instead of a name of its own.

        Raises:
            UserError: something could not be written. Other checkpoints are as they were.
        """
        self.add(MANIFEST, _rendered({**facts, "format": FORMAT, "files": dict(self.files)}).encode())
        if self.error is not None:
            raise cannot_write(self.run / FOLDER, self.error, self.bytes) from self.error
        target = self.folder.parent / name
        try:
            for folder in {self.folder, *(path.parent for path in self.folder.rglob("*"))}:
                flush_folder(folder)
            if replace and target.exists():
                remove(target)
            target = _free_name(target)
            self.folder.rename(target)
            flush_folder(target.parent)
            flush_folder(self.run)
        except OSError as error:
            raise cannot_write(target, error, self.bytes) from error
        return target

    def discard(self) -> None:
        """Remove it, if it has not been published."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Sink:
    """One file of a draft: hashes and counts what is written."""

    def __init__(self, draft: Draft, name: str) -> None:
        self.draft, self.name = draft, name
        self.length = 0
        self._digest = hashlib.sha256()
        self._file: Any = None
        if draft.error is None:
            try:
                path = draft.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("wb")
            except OSError as error:
                draft.error = error

    def write(self, content: bytes | memoryview) -> int:
        """Take some bytes; never raises for what the system says."""
        view = memoryview(content)
        self.length += view.nbytes
        if self.draft.error is None:
            try:
                self._file.write(view)
                self._digest.update(view)
            except OSError as error:
                self.draft.error = error
        return view.nbytes

    def flush(self) -> None:
        """Part of being a file; `__exit__` does it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.draft.bytes += self.length
        self.draft.files[self.name] = {"bytes": self.length, "sha256": self._digest.hexdigest()}
        if self._file is None:
            return
        try:
            if self.draft.error is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        except OSError as failure:
            self.draft.error = failure
        with suppress(OSError):  # what could not be written before cannot be now
            self._file.close()


def _free_name(target: Path) -> Path:
    """The name itself, or with the first number behind it that is not taken."""
    number, found = 1, target
    while found.exists():
        number += 1
        found = target.with_name(f"{target.name}-{number}")
    return found


def _partial(checkpoints: Path) -> Path:
    """A name that nothing has, for what is not whole."""
    return checkpoints / f"{PARTIAL}{secrets.token_hex(4)}"
