"""`plugins_path=./my_plugins`: plugins in a folder, without packaging, for the first hour of an idea.

The folder holds `conf/<group>/<option>.yaml` and, beside `conf/`, the modules that their `_target_`s name:
`my_plugins/acme.py` for `_target_: acme.Acme`. Who types the key trusts the folder's code; where only a saved
run names it, `feedtune.config.saved` asks first. Its modules are found after all that is installed, so one
that has the name of something installed is refused.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from feedtune.config.discovery import Provider, local, own_conf, set_local
from feedtune.config.trust import trust, trust_code
from feedtune.errors import UserError, one_line

KEY = "plugins_path"

ONE_FOLDER = (
    f"expected one folder; {KEY} takes one only: put the options of all into its conf/, or install the "
    "others as plugins (pip install -e)"
)

_GIVEN = re.compile(rf"\+{{0,2}}{KEY}=")

_NO_PLUGINS = ("conf", "conftest", "setup", "test", "tests")
"""Names beside `conf/` that are not for `_target_`."""

_used: list[Path] = []
"""Folders whose modules this process can import."""


def adopt(overrides: Sequence[str]) -> list[str]:
    """Let the folder that a command's overrides name take part from now on, and none if they name none.

    Returns:
        The overrides with the folder's absolute path, which is right in any working directory.

    Raises:
        UserError: it is no folder of plugins.
    """
    given = [line for line in overrides if _GIVEN.match(line)]
    if len(given) > 1:
        raise UserError(f"{' '.join(given)}: {ONE_FOLDER}")
    folder = _folder(given[-1]) if given else None
    if folder is None:
        set_local(None)
        return list(overrides)
    use(folder)
    absolute = f"={quoted(folder)}"
    return [line.partition("=")[0] + absolute if line in given else line for line in overrides]


@contextmanager
def adopted(overrides: Sequence[str]) -> Iterator[list[str]]:
    """As `adopt`, for a while and inside a command: where they name no folder, its folder takes part."""
    before = local()
    try:
        yield adopt(overrides) if any(map(_GIVEN.match, overrides)) else list(overrides)
    finally:
        set_local(before)


def use(folder: str | Path) -> Path:
    """Let a folder's options take part, and its modules be imported and named; returns its absolute path.

    Raises:
        UserError: it is no folder of plugins, or a module in it has the name of an installed one.
    """
    folder = _absolute(folder)
    conf = folder / "conf"
    if not conf.is_dir():
        raise UserError(
            f"{KEY}: {folder} has no folder conf/; an option is a file such as {conf}/reward/acme.yaml"
        )
    if conf.resolve() == own_conf().resolve():
        raise UserError(f"{KEY}: {folder}: its options are feedtune's own, which need no {KEY}")
    modules = tuple(sorted(_modules(folder)))
    for name in modules:
        _refuse_hidden(name, folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()
    if folder not in _used:
        _used.append(folder)
    trust(modules)
    trust_code([str(folder)])
    set_local(Provider(folder.name, "", str(folder), "", conf, folder=folder, modules=modules))
    return folder


def home_of(kind: type) -> Path | None:
    """The folder of plugins that a class comes from; None: it comes from elsewhere."""
    try:
        file = Path(inspect.getfile(kind)).absolute()
    except (TypeError, OSError):  # built in, or typed in
        return None
    return next((folder for folder in _used if file.is_relative_to(folder)), None)


def _folder(line: str) -> Path | None:
    """The folder that an override names; None: `plugins_path=null`."""
    try:
        one = OverridesParser.create().parse_override(line)
    except HydraException as error:
        raise UserError(
            f"'{line}': cannot be read. Quote a path with blanks or special characters twice, as in "
            f"{KEY}='\"my plugins\"'"
        ) from error
    if one.is_sweep_override():
        raise UserError(f"{line}: expected one folder; a sweep goes over the options in it")
    value: Any = one.value()
    try:
        found = OmegaConf.create({KEY: value})[KEY]  # ${oc.env:HOME}/plugins
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]  # below it: where OmegaConf was
        raise UserError(f"{line}: {reason}") from error
    if found is None:
        return None
    if not (isinstance(found, str) and found):
        several = isinstance(value, list) and len(value) > 1
        raise UserError(f"{line}: {ONE_FOLDER if several else f'expected a folder, got {found!r}'}")
    return _absolute(found)


def _absolute(folder: str | Path) -> Path:
    """A folder that is there, as every process finds it."""
    try:
        found = Path(folder).expanduser().resolve()
        there = found.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, no text, a home of nobody
        raise UserError(f"{KEY}: {str(folder)[:80]!r} is no folder: {one_line(error)}") from error
    if not there:
        raise UserError(f"{KEY}: {found}: there is no such folder")
    return found


def quoted(folder: str | Path) -> str:
    """As Hydra reads a value whatever characters it has."""
    escaped = str(folder).replace("'", "\\'")
    return f"'{escaped}'"


def _modules(folder: Path) -> Iterator[str]:
    """Names of the modules and packages beside `conf/`."""
    for path in folder.iterdir():
        module = path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
        if module and path.stem.isidentifier() and path.stem not in _NO_PLUGINS and path.stem[0] != "_":
            yield path.stem


def _refuse_hidden(name: str, folder: Path) -> None:
    """Refuse a module that importing its name would not find."""
    place: str | None = "Python's own library" if name in sys.stdlib_module_names else None
    if place is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            return
        place = None if spec is None else spec.origin  # a folder without __init__.py hides nothing
    if place is not None and not Path(place).resolve().is_relative_to(folder.resolve()):
        kept = next(one for one in (folder / f"{name}.py", folder / name) if one.exists())
        raise UserError(
            f"{KEY}: {kept} has the name of an installed module, which would be imported in its place "
            f"({place}); give it another name"
        )
