"""What a config may name: the class or function of a dotted path, if where it comes from is trusted."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from feedtune.config.discovery import providers
from feedtune.errors import UserError, nearest, one_line

TRUSTED = ("feedtune", "feedtune_plugins", "lightning", "torch.optim", "torchmetrics")
"""Import prefixes that `_target_` may name, beside those of installed plugins and the user's own."""

_trusted_by_user: list[str] = []


def trust(prefixes: Sequence[str]) -> None:
    """Let `_target_` name these import prefixes too, for the rest of this process.

    A function that `reward.path` names is not asked for: it is code of whoever wrote the path, on the command
    line or in the config of a run of their own.
    """
    _trusted_by_user.extend(prefixes)


def is_trusted(path: str) -> bool:
    """Whether a dotted path lies under a trusted import prefix.

    >>> is_trusted("torch.optim.AdamW"), is_trusted("os.system"), is_trusted("torch.optimist")
    (True, False, False)
    """
    return _is_under(path, (*TRUSTED, *(p.package for p in providers()), *_trusted_by_user))


def _is_under(path: str, prefixes: Sequence[str]) -> bool:
    return any(path == prefix or path.startswith(prefix + ".") for prefix in prefixes)


def resolve(path: Any, key: str) -> Any:
    """The class or function of a dotted path. What it really is must be trusted, not only its name.

    Raises:
        UserError: naming `key`; the path is not trusted, or there is no such class or function.
    """
    if not (isinstance(path, str) and path.rpartition(".")[0]):
        raise UserError(f"{key}: expected the dotted path of a class or function, got {path!r}")
    if not is_trusted(path):
        raise _untrusted(path, key)
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module's own code raises
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise UserError(f"{key}: cannot import '{path}': {kind}{one_line(error)}") from error
    if not hasattr(module, name):
        raise UserError(f"{key}: '{module_name}' has no '{name}'.{nearest(name, dir(module))}")
    target = getattr(module, name)
    home = getattr(target, "__module__", None) or type(target).__module__
    if not (is_trusted(home) or _is_under(path, _trusted_by_user)):
        raise _untrusted(f"{home}.{name}", key, f", which '{path}' leads to,")
    if not callable(target):
        raise UserError(f"{key}: '{path}' is no class or function, but {type(target).__name__}")
    return target


def _untrusted(path: str, key: str, how: str = "") -> UserError:
    prefix = path.split(".")[0]
    return UserError(
        f"{key}: '{path}'{how} is not trusted; plugins and {', '.join(TRUSTED)} are. "
        f"If you know what it does, add trust=[{prefix}] on the command line"
    )
