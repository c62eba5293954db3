"""What W&B has written into a run folder, read back by its own `wandb leet inspect`.

Called past the command line of Python, which takes a second to load.
"""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wandb.util import get_core_path

CANARY = "canary0123456789abcdefghij"
"""What must not be found."""


@dataclass(frozen=True)
class Offline:
    """The records of one offline run."""

    folder: Path  # offline-run-*
    records: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of a kind, in order."""
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def run(self) -> dict[str, Any]:
        """What was said of the run as it began: id, project, tags and so on."""
        found: dict[str, Any] = self.of("run")[0]
        return found

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows."""
        return [record["item"] for record in self.of("history")]

    @property
    def config(self) -> dict[str, Any]:
        """As it was at the end."""
        found: dict[str, Any] = {}
        for update in [self.run.get("config", {}), *self.of("config")]:
            found |= update.get("update", {})
        return found

    def metrics(self) -> list[dict[str, Any]]:
        """The rows without W&B's own columns and without tables and histograms."""
        own = ("_", "trainer/", "samples.", "histogram/")
        return [{k: v for k, v in row.items() if not k.startswith(own)} for row in self.history]

    def table(self, row: Mapping[str, Any], key: str = "samples") -> dict[str, Any]:
        """A table of a row: its `columns` and `data`."""
        path = self.folder / "files" / str(row[f"{key}.path"])
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def artifacts(self, name: str) -> list[dict[str, Any]]:
        """Those whose name begins so."""
        return [one for one in self.of("artifact") if one["name"].startswith(name)]


def offline_runs(run: Path, ended: bool = True) -> list[Offline]:
    """Every offline run of a run folder, the oldest first.

    Args:
        run: the run folder.
        ended: wait for W&B's own process, which may write the end a little later; of a run that was killed
            there is none.
    """
    more = ["--follow", "--idle-timeout", "30s"] if ended else []
    found = []
    for folder in sorted(run.glob("wandb/offline-run-*")):
        [file] = folder.glob("run-*.wandb")
        inspect = [get_core_path(), "leet", "inspect", "--json", "--no-observability"]
        command = [*inspect, *more, "--run-file", str(file), str(folder.parent)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
        found.append(Offline(folder, [json.loads(line) for line in said.stdout.splitlines()]))
    return found


def metrics_of(run: Path) -> list[dict[str, float]]:
    """The rows of a run folder's metrics.csv, without empty cells."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def offline_run(run: Path) -> Offline:
    """The only one."""
    [found] = offline_runs(run)
    return found


@dataclass(frozen=True)
class Tracked:
    """A run folder, and what W&B wrote there."""

    folder: Path
    offline: Offline


def repository(folder: Path, remote: str) -> str:
    """A Git repository with one commit; its hash."""
    git = ["git", "-c", "user.name=me", "-c", "user.email=me@example.org", "-C", str(folder)]
    for arguments in (
        ["init", "-q"],
        ["remote", "add", "origin", remote],
        ["add", "."],
        ["commit", "-qm", "one"],
    ):
        subprocess.run([*git, *arguments], check=True, timeout=30)
    said = subprocess.run([*git, "rev-parse", "HEAD"], check=True, timeout=30, capture_output=True, text=True)
    return said.stdout.strip()
