"""Who offers options: distributions with an entry point in the group `feedtune.plugins`, and one folder.

The entry point's value names a package whose `conf/` holds `<group>/<option>.yaml`. feedtune's own options
come in by the same door; the folder of `plugins_path` joins them (`feedtune.config.local_plugins`). Nothing
is imported here: a package's folder is found from its top-level package's spec, so that a broken plugin stops
nobody and `--help` stays quick. What is wrong with a plugin: `feedtune.config.plugin_problems`.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

from feedtune.config.compatibility import asked_of_feedtune, installed, misfit
from feedtune.errors import one_line

ENTRY_POINT_GROUP = "feedtune.plugins"

OWN = "feedtune"
"""feedtune's own distribution and package."""

OPTIONAL = ("reward", "optimizer", "scheduler", "logger", "callbacks", "checkpoint")
"""Groups that `~group` may leave out."""


@dataclass(frozen=True)
class Provider:
    """A distribution, or a folder, that offers options."""

    name: str  # of the entry point
    package: str  # import name, trusted for `_target_`; of a folder: ""
    distribution: str  # of a folder: its path
    version: str
    conf: Path | None  # folder of its options; None: there is none, `problem` says why
    problem: str | None = None
    asks: str = ""  # versions of feedtune that it asks for, such as ">=0.1,<0.2"; "": any
    folder: Path | None = None  # of `plugins_path`; None: it is installed
    modules: tuple[str, ...] = ()  # top-level modules of that folder

    @property
    def own(self) -> bool:
        """Whether this is feedtune itself."""
        return (self.distribution, self.package) == (OWN, OWN)

    @property
    def title(self) -> str:
        """How messages name it."""
        if self.folder is not None:
            return f"plugins_path {self.folder}"
        named = "" if self.name == self.distribution else f"'{self.name}' of "
        return f"plugin {named}{self.distribution} {self.version}"

    @property
    def remedy(self) -> str:
        """What to do about what its author has to mend."""
        if self.folder is not None:
            return "mend it there"
        return f"pip install --upgrade {self.distribution}, or pip uninstall {self.distribution}"

    def misfit(self) -> tuple[str, str] | None:
        """Why it cannot be used with the feedtune that runs, and what to do; None: it can."""
        return misfit(self.distribution, self.asks, installed()) if self.asks else None

    def holds(self, path: str) -> bool:
        """Whether a dotted path is of its package, or of its folder's modules."""
        return any(f"{path}.".startswith(f"{one}.") for one in self.modules or (self.package,))

    def options(self) -> list[tuple[str, str]]:
        """(group, option) of every YAML it ships, sorted."""
        if self.conf is None:
            return []
        files = sorted(self.conf.glob("*/**/*.yaml"))
        return [(str(f.parent.relative_to(self.conf)), f.stem) for f in files]

    def file(self, group: str, option: str) -> Path:
        """The YAML of an option."""
        assert self.conf is not None, f"{self.title} has no options"
        return self.conf / group / f"{option}.yaml"


def conf_folder(package: str) -> Path | None:
    """The folder `conf` of a package, without importing it.

    A checkout that keeps `conf/` at its top, beside the folder of its packages, is found too.
    """
    for folder in _folders_of(package):
        for candidate in (folder / "conf", folder.parent.parent / "conf"):
            if candidate.is_dir():
                return candidate
    return None


def _folders_of(package: str) -> list[Path]:
    """Where a package lies; nothing where it is not there, or is a module without a folder."""
    top, *rest = package.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # no name, or a module that says nothing of itself
        return []
    found = [] if spec is None else spec.submodule_search_locations or []
    return [folder for folder in (Path(one).joinpath(*rest) for one in found) if folder.is_dir()]


def _promising() -> list[Distribution]:
    """Distributions that speak of our entry points; of two of one name, the first on the path."""
    found: dict[str, Distribution] = {}
    for dist in distributions():
        try:
            said = dist.read_text("entry_points.txt") or ""
        except (OSError, UnicodeDecodeError):
            continue
        if ENTRY_POINT_GROUP in said:
            found.setdefault(dist.name or "unknown", dist)
    return list(found.values())


def _offered_by(dist: Distribution) -> Iterator[Provider]:
    """What the entry points of a distribution promise."""
    name, version = dist.name or "unknown", dist.version or "unknown"
    try:
        entries = [one for one in dist.entry_points if one.group == ENTRY_POINT_GROUP]
    except Exception as error:  # importlib.metadata takes for granted that every line has a '='
        yield Provider(name, "", name, version, None, f"its entry points cannot be read: {one_line(error)}")
        return
    for entry in entries:
        package = re.split(r"[:\[ ]", entry.value.strip())[0]
        conf, problem = conf_folder(package), None
        where = f"'{package}' (entry point '{entry.name}')"
        if conf is None and not _folders_of(package):
            problem = f"there is no package {where}"
        elif conf is None:
            problem = f"the package {where} has no folder conf/"
        yield Provider(
            entry.name, package, name, version, conf, problem, asked_of_feedtune(dist.requires or ())
        )


_local: list[Provider] = []
"""The folder of `plugins_path`, where there is one."""


def local() -> Provider | None:
    """The folder of `plugins_path` that takes part, if one does."""
    return next(iter(_local), None)


def set_local(provider: Provider | None) -> None:
    """Let this folder take part, and no other; None: only what is installed."""
    wanted = [] if provider is None else [provider]
    if _local != wanted:
        _local[:] = wanted
        providers.cache_clear()


@cache
def providers() -> Sequence[Provider]:
    """Every provider: feedtune first, then the installed ones by name, then the folder of `plugins_path`.

    Hydra takes an option from the first that has it.
    """
    found = {(p.distribution, p.package): p for dist in _promising() for p in _offered_by(dist)}
    ordered = sorted(found.values(), key=lambda p: (not p.own, p.name, p.distribution, p.package))
    return [*ordered, *_local]


def third_party() -> list[Provider]:
    """Every provider but feedtune itself."""
    return [provider for provider in providers() if not provider.own]


def provider_of(path: str) -> Provider | None:
    """The plugin whose package, or folder, a dotted path is of; None: it is of feedtune or of no plugin.

    >>> provider_of("feedtune_plugins.rewards.Length") is None
    True
    """
    return next((one for one in third_party() if one.holds(path)), None)


def options_of(group: str) -> list[str]:
    """The options of a group, of every provider; empty: there is no such group."""
    found = [option for provider in providers() for name, option in provider.options() if name == group]
    return list(dict.fromkeys(found))


def own_conf() -> Path:
    """feedtune's own folder of options."""
    folder = conf_folder(OWN)
    if folder is None:
        raise RuntimeError("feedtune is installed without its conf folder; install it again")
    return folder
