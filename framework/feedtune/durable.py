"""Files that are there whole or not at all, after a kill, a power cut or on a full disk."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from feedtune.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of the system that mean that there is no more room: on the disk, of a quota, in a file."""


def replace_file(path: Path, content: str) -> None:
    """Write a file in one stroke: beside it first, flushed to the disk, then renamed.

    A lone surrogate, which UTF-8 has no bytes for, becomes the escape that JSON has for it.

    Raises:
        UserError: it cannot be written; what was there before still is.
    """
    beside = path.with_name(f".partial-{path.name}")
    try:
        with beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def append_file(path: Path, content: str) -> None:
    """Add to a file and flush it to the disk; killed in the middle of it, its last line may be cut off.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


def flush_folder(folder: Path) -> None:
    """Make durable which files a folder holds; where a file system knows no such thing, nothing happens."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def cannot_write(path: Path, error: OSError, needed: int | None = None) -> UserError:
    """The error for what could not be written; on a full disk with the room that there is.

    Args:
        path: what was to be written.
        error: what the system said.
        needed: bytes that it takes, where known.
    """
    said = error.strerror or str(error)
    if error.errno not in FULL:
        return UserError(f"{path}: cannot be written: {said}")
    takes = f"it takes {size(needed)}, and " if needed is not None else ""
    if error.errno == errno.EFBIG:
        return UserError(f"{path}: cannot be written: {said}; {takes}there is a limit: see `ulimit -f`")
    free = f"{size(_free(path))} are free there: make room"
    return UserError(f"{path}: cannot be written: {said}; {takes}{free}")


def _free(path: Path) -> int:
    return shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.exists())).free


def size(count: int) -> str:
    """Bytes for people.

    >>> size(999), size(1_500_000), size(2 * 10**12)
    ('999 B', '1.5 MB', '2000.0 GB')
    """
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
