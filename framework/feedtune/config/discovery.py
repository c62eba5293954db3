"""Who offers options: distributions with an entry point in the group `feedtune.plugins`.

Its value names a package whose `conf/` holds `<group>/<option>.yaml`. feedtune's own options come in by the
same door. Nothing is imported here: the package's folder is found from its top-level package's spec, so
that a broken plugin stops nobody and `--help` stays quick.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

ENTRY_POINT_GROUP = "feedtune.plugins"

OPTIONAL = ("reward", "optimizer", "scheduler", "logger", "callbacks", "checkpoint")
"""Groups that `~group` may leave out."""


@dataclass(frozen=True)
class Provider:
    """A distribution that offers options."""

    name: str  # of the entry point
    package: str  # import name, trusted for `_target_`
    distribution: str
    version: str
    conf: Path | None  # folder of its options; None: there is none, `problem` says why
    problem: str | None = None

    def options(self) -> list[tuple[str, str]]:
        """(group, option) of every YAML it ships, sorted."""
        if self.conf is None:
            return []
        files = sorted(self.conf.glob("*/**/*.yaml"))
        return [(str(f.parent.relative_to(self.conf)), f.stem) for f in files]


def conf_folder(package: str) -> Path | None:
    """The folder `conf` of a package, without importing it.

    A checkout that keeps `conf/` at its top, beside the folder of its packages, is found too.
    """
    top, *rest = package.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)
    for candidate in (folder / "conf", folder.parent.parent / "conf"):
        if candidate.is_dir():
            return candidate
    return None


def _provider(entry: EntryPoint) -> Provider:
    dist = entry.dist
    name, version = (dist.name, dist.version) if dist else ("unknown", "unknown")
    package = entry.value.split(":")[0]
    conf = conf_folder(package)
    problem = None if conf else f"the package '{package}' has no folder conf/ (entry point '{entry.name}')"
    return Provider(entry.name, package, name, version, conf, problem)


@cache
def providers() -> Sequence[Provider]:
    """Every provider that is installed, feedtune first, the others by name."""
    found = {(p.name, p.package): p for p in map(_provider, entry_points(group=ENTRY_POINT_GROUP))}
    return sorted(found.values(), key=lambda p: (p.name != "feedtune", p.name))


def options_of(group: str) -> list[str]:
    """The options of a group, of every provider; empty: there is no such group."""
    return [option for provider in providers() for name, option in provider.options() if name == group]


def own_conf() -> Path:
    """feedtune's own folder of options."""
    folder = conf_folder("feedtune")
    if folder is None:
        raise RuntimeError("feedtune is installed without its conf folder; install it again")
    return folder
