"""Random damage to a run's newest checkpoint: the one before is taken, or none; never a damaged one."""

from __future__ import annotations

import contextlib
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from hypothesis import strategies as st

from feedtune.checkpoints import newest
from feedtune.errors import UserError
from fuzz.tallies import WrongError
from small_runs import overrides, run, write_rows


@dataclass(frozen=True)
class Damage:
    """What happens to a file of the newest checkpoint."""

    file: int  # which, in the order of their names
    how: str
    where: float  # as a share of the file's length
    data: bytes


PAIR = ("state.ckpt", "manifest.json")

HOWS = ("flip", "cut", "grow", "insert", "overwrite", "empty", "replace", "delete", "older", "folder", "link")


def cases() -> st.SearchStrategy[list[Damage]]:
    """One to three damages."""
    damage = st.builds(
        Damage,
        st.integers(0, 99),
        st.sampled_from(HOWS),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=40),
    )
    return st.lists(damage, min_size=1, max_size=3)


class Place:
    """A folder with a run of two checkpoints, of which copies are damaged."""

    def __init__(self, folder: Path) -> None:
        self.whole = folder / "whole"
        run(self.whole, overrides(write_rows(folder), "ngram", "sft"))
        self.older, self.newer = sorted((self.whole / "checkpoints").glob("step-*"))[-2:]
        self.copy = folder / "damaged"

    def trial(self, case: list[Damage]) -> str:
        """Damage a copy: "older" (the one before was taken), "none", or "same" (the damage undid itself).

        Raises:
            WrongError: a damaged state was taken, or the refused one was not named.
        """
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.whole / "checkpoints", self.copy / "checkpoints")
        target = self.copy / "checkpoints" / self.newer.name
        for damage in case:
            self._damage(target, damage)
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                found = newest(self.copy)
        except UserError:
            return "none"
        if found is None:
            return "none"
        torch.load(found, weights_only=True)
        if found.parent.name == self.newer.name:
            if any((found.parent / one).read_bytes() != (self.newer / one).read_bytes() for one in PAIR):
                raise WrongError("a damaged state was taken for a whole one")
            return "same"
        if found.read_bytes() != (self.older / found.name).read_bytes():
            raise WrongError(f"{found} is neither of the two")
        if self.newer.name not in said.getvalue():
            raise WrongError(f"the refused checkpoint is not named: {said.getvalue()!r}")
        return "older"

    def _damage(self, target: Path, damage: Damage) -> None:
        files = sorted(file for file in target.rglob("*") if file.is_file())
        if not files:
            return
        file = files[damage.file % len(files)]
        data = file.read_bytes()
        at = min(int(damage.where * len(data)), max(0, len(data) - 1))
        if damage.how in ("delete", "folder", "link"):
            file.unlink()
            if damage.how == "folder":
                file.mkdir()
            elif damage.how == "link":
                file.symlink_to("nowhere")
            return
        changed = {
            "flip": bytes([*data[:at], data[at] ^ (1 << damage.data[0] % 8), *data[at + 1 :]])
            if data
            else b"x",
            "cut": data[:at],
            "grow": data + damage.data,
            "insert": data[:at] + damage.data + data[at:],
            "overwrite": data[:at] + damage.data + data[at + len(damage.data) :],
            "empty": b"",
            "replace": damage.data,
            "older": self._of_older(target, file),
        }
        file.write_bytes(changed[damage.how])

    def _of_older(self, target: Path, file: Path) -> bytes:
        other = self.older / file.relative_to(target)
        return other.read_bytes() if other.is_file() else b""
