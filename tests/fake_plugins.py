"""Distributions as pip would leave them, without pip: a package, and metadata with an entry point."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

SCORES = "    def __call__(self, samples): return [0.5] * len(samples)\n"

POLITE = {
    "polite/__init__.py": f"class Polite:\n{SCORES}",
    "polite/conf/reward/polite.yaml": "# reward=polite: half a point\n_target_: polite.Polite\n",
}
"""The files of a plugin that works."""


def write(folder: Path, files: dict[str, str]) -> Path:
    """Files by their path in a folder."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def install(
    folder: Path,
    name: str,
    package: str,
    files: dict[str, str],
    *,
    version: str = "1.2",
    requires: Sequence[str] = (),
    entry_points: str | None = None,
) -> None:
    """What pip would leave in a folder of the import path.

    Args:
        folder: on `sys.path`, or on PYTHONPATH of another process.
        name: of the distribution and of its entry point.
        package: that the entry point names.
        files: of the package.
        version: of the distribution.
        requires: its lines of Requires-Dist.
        entry_points: all of entry_points.txt, where it is to be another.
    """
    write(folder, files)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in requires)]
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")
    (info / "entry_points.txt").write_text(entry_points or f"[feedtune.plugins]\n{name} = {package}\n")
