"""What a config may name: the class or function of a dotted path, if where it comes from is trusted.

Of the packages that come with feedtune a config may name what is a part of a run: public classes, and the
functions that make loggers and schedulers. Their other functions are no parts, and some of them run whatever
they are told to (`lightning.pytorch.cli.instantiate_class`, `feedtune.cli.main`). Plugins answer for
themselves, and whoever adds a prefix to `trust` answers for all of it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any

from feedtune.config.discovery import provider_of, providers
from feedtune.errors import UserError, nearest, one_line

TRUSTED = ("feedtune", "feedtune_plugins", "lightning", "torch.optim", "torchmetrics")
"""Import prefixes that `_target_` may name, beside those of installed plugins and the user's own."""

MAKERS = ("feedtune.schedulers", "feedtune.tracking.loggers")
"""Modules of which functions may be named too."""

LIGHTNINGS_PARTS = (
    *(f"lightning.pytorch.{room}" for room in ("accelerators", "callbacks", "loggers", "plugins")),
    *(f"lightning.pytorch.{room}" for room in ("profilers", "strategies", "trainer")),
    *(f"lightning.fabric.{room}" for room in ("accelerators", "loggers", "plugins", "strategies")),
)
"""Where Lightning's parts of a run live; its LightningCLI, for one, imports what its arguments name."""

_trusted_by_user: list[str] = []
_code_of_user: set[str] = set()


def trust(prefixes: Sequence[str]) -> None:
    """Let `_target_` name these import prefixes too, for the rest of this process."""
    _trusted_by_user.extend(prefix for prefix in prefixes if prefix not in _trusted_by_user)


def trust_code(paths: Iterable[str]) -> None:
    """Remember code that the user has named by its path in this process (see `feedtune.config.saved`)."""
    _code_of_user.update(paths)


def is_code_of_user(path: str) -> bool:
    """Whether the user of this process has named this code."""
    return path in _code_of_user


def is_trusted(path: str) -> bool:
    """Whether a dotted path lies under a trusted import prefix.

    >>> is_trusted("torch.optim.AdamW"), is_trusted("os.system"), is_trusted("torch.optimist")
    (True, False, False)
    """
    return needs_no_word(path) or is_under(path, _trusted_by_user)


def needs_no_word(path: str) -> bool:
    """Whether a dotted path is trusted in every process: of feedtune, its parts and installed plugins."""
    return is_under(path, (*TRUSTED, *(p.package for p in providers() if p.package)))


def is_under(path: str, prefixes: Iterable[str]) -> bool:
    """Whether a dotted path is one of these or lies below one.

    >>> is_under("a.b.c", ["a.b"]), is_under("a.bc", ["a.b"])
    (True, False)
    """
    return any(path == prefix or path.startswith(prefix + ".") for prefix in prefixes)


def resolve(path: Any, key: str) -> Any:
    """The class or function of a dotted path. What it really is must be trusted, not only its name.

    Raises:
        UserError: naming `key`, and the plugin that the path is of; it is not trusted, or there is no such
            class or function, or the plugin is made for another feedtune.
    """
    plugin = provider_of(path) if isinstance(path, str) else None
    if plugin is None:
        return loaded(path, key)
    unfit = plugin.misfit()
    if unfit is not None:
        raise UserError(f"{key}: '{path}' is of {plugin.title}: {'; '.join(unfit)}")
    try:
        return loaded(path, key)
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')} (of {plugin.title}; {plugin.remedy})") from error


def loaded(path: Any, key: str) -> Any:
    """As `resolve`, whichever plugin it is of.

    Raises:
        UserError: naming `key`.
    """
    if not (isinstance(path, str) and path.rpartition(".")[0]):
        raise UserError(f"{key}: expected the dotted path of a class or function, got {path!r}")
    if not is_trusted(path):
        raise _untrusted(path, key)
    target = _found(path, key)
    home = getattr(target, "__module__", None) or type(target).__module__
    if is_under(path, _trusted_by_user):
        return _callable(target, path, key)
    if not is_trusted(home):
        name = path.rpartition(".")[2]
        raise _untrusted(f"{home}.{name}", key, f", which '{path}' leads to,")
    if not _is_part(_callable(target, path, key), home):
        raise UserError(
            f"{key}: '{path}' is no part of a run; of {', '.join(TRUSTED)} a config may name public classes "
            f"that are, and the functions of {' and '.join(MAKERS)}"
        )
    return target


def _found(path: str, key: str) -> Any:
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever a module's own code raises
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise UserError(f"{key}: cannot import '{path}': {kind}{one_line(error)}") from error
    if not hasattr(module, name):
        raise UserError(f"{key}: '{module_name}' has no '{name}'.{nearest(name, dir(module))}")
    return getattr(module, name)


def _callable(target: Any, path: str, key: str) -> Any:
    if not callable(target):
        raise UserError(f"{key}: '{path}' is no class or function, but {type(target).__name__}")
    return target


def _is_part(target: Any, home: str) -> bool:
    """Whether something that lives in `home` may be named; plugins of others decide that for themselves."""
    if not is_under(home, TRUSTED) or is_under(home, _trusted_by_user):
        return True
    if getattr(target, "__name__", "_").startswith("_"):
        return False
    if is_under(home, ["lightning"]) and not is_under(home, LIGHTNINGS_PARTS):
        return False
    return isinstance(target, type) or home in MAKERS


def _untrusted(path: str, key: str, how: str = "") -> UserError:
    prefix = path.split(".")[0]
    return UserError(
        f"{key}: '{path}'{how} is not trusted; plugins and {', '.join(TRUSTED)} are. "
        f"If you know what it does, add trust=[{prefix}] on the command line (generate "
        "and export, which take no overrides: --trust)"
    )
