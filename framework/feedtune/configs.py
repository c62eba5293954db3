"""From a composed config to objects: types are checked, targets must be trusted, errors name the key."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import hydra.utils
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from feedtune import hydra_setup
from feedtune.discovery import own_conf, providers
from feedtune.errors import UserError, nearest

TRUSTED = ("feedtune", "feedtune_plugins", "lightning", "torch.optim", "torchmetrics")
"""Import prefixes that `_target_` may name, beside those of installed plugins and the user's own."""

_trusted_by_user: list[str] = []


def compose_config(overrides: Sequence[str] = (), config_name: str = "train") -> DictConfig:
    """The config that `feedtune train [overrides]` would run.

    Raises:
        hydra.errors.HydraException: an unknown group, option or key, or bad override syntax.
    """
    hydra_setup.register()
    with initialize_config_dir(str(own_conf()), version_base="1.3"):
        return compose(config_name, list(overrides))


def trust(prefixes: Sequence[str]) -> None:
    """Let `_target_` and `reward.path` name these import prefixes too, for the rest of this process."""
    _trusted_by_user.extend(prefixes)


def is_trusted(path: str) -> bool:
    """Whether a dotted path lies under a trusted import prefix.

    >>> is_trusted("torch.optim.AdamW"), is_trusted("os.system"), is_trusted("torch.optimist")
    (True, False, False)
    """
    known = (*TRUSTED, *(p.package for p in providers()), *_trusted_by_user)
    return any(path == prefix or path.startswith(prefix + ".") for prefix in known)


def resolve(path: str, key: str) -> Any:
    """The class or function of a dotted path. What it really is must be trusted, not only its name."""
    refusal = UserError(
        f"{key}: '{path}' is not trusted. Only plugins and {', '.join(TRUSTED)} may be named; "
        f"add a prefix of your own with trust=[{path.split('.')[0]}] on the command line"
    )
    if not is_trusted(path):
        raise refusal
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"{key}: cannot import '{path}': {error}") from error
    if not hasattr(module, name):
        raise UserError(f"{key}: '{module_name}' has no '{name}'.{nearest(name, dir(module))}")
    target = getattr(module, name)
    if not is_trusted(getattr(target, "__module__", None) or type(target).__module__):
        raise refusal
    return target


def build(config: Any, key: str, **given: Any) -> Any:
    """The object that a config node describes; `given` are arguments that only exist at run time.

    Nodes with `_partial_: true` give a `functools.partial`. An empty node gives None.

    Raises:
        UserError: an untrusted target, or a constructor that refuses its arguments.
    """
    plain = to_plain(config)
    if not plain:
        return None
    for path, node in _targets(plain, key):
        resolve(node["_target_"], f"{path}._target_")
    is_partial = plain.get("_partial_", False)
    try:
        partial = hydra.utils.instantiate({**plain, "_partial_": True, "_convert_": "all"})
        return partial if is_partial else partial(**given)
    except (InstantiationException, TypeError, ValueError) as error:
        raise _as_user_error(error, key) from error


def _as_user_error(error: BaseException, key: str) -> UserError:
    """The user's own error inside Hydra's wrapping, or one that names the key."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        innermost, cause = cause, cause.__cause__
    return UserError(f"{key}: {type(innermost).__name__}: {innermost}")


def to_plain(config: Any) -> Any:
    """Plain dicts and lists, interpolations resolved."""
    if not OmegaConf.is_config(config):
        return config
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {error.msg or error}") from error


def _targets(node: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping with a `_target_`, with its full key, outermost first."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield key, node
        for name, value in node.items():
            yield from _targets(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _targets(value, f"{key}[{index}]")


def check(config: DictConfig, schema: Mapping[str, Any], groups: Sequence[str]) -> None:
    """Check every value of a composed config against the signature of what it configures.

    Args:
        config: as composed.
        schema: types of the top-level values that configure no target; a dataclass stands for a mapping.
        groups: the other top-level keys.

    Raises:
        UserError: with every problem, one a line.
    """
    plain = to_plain(config)
    known = [*schema, *groups]
    problems = [f"{name}: there is no such key.{nearest(name, known)}" for name in plain if name not in known]
    for name, annotation in schema.items():
        if isinstance(annotation, type) and hasattr(annotation, "__dataclass_fields__"):
            problems += _signature_problems(annotation, plain[name], name)
        elif not fits(plain[name], annotation):
            problems.append(_wrong_type(name, plain[name], annotation))
    for key, node in _targets(plain, ""):
        target = resolve(node["_target_"], f"{key}._target_")
        problems += _signature_problems(target, node, key)
    if problems:
        raise UserError("\n".join(problems))


def _signature_problems(target: Callable[..., Any], node: Mapping[str, Any], key: str) -> list[str]:
    parameters = inspect.signature(target).parameters
    hints = _hints(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    problems = []
    for name, value in node.items():
        if name in ("_target_", "_partial_", "_convert_", "_recursive_"):
            continue
        if name not in parameters:
            if not open_ended:
                problems.append(f"{key}.{name}: unknown key.{nearest(name, parameters)}")
        elif name in hints and not fits(value, hints[name]):
            problems.append(_wrong_type(f"{key}.{name}", value, hints[name]))
    return problems


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a constructor or function; none where they name what cannot be imported."""
    function: Any = target
    if inspect.isclass(target) and not hasattr(target, "__dataclass_fields__"):
        function = target.__init__
    try:
        return get_type_hints(inspect.unwrap(function))
    except (NameError, TypeError, AttributeError):
        return {}


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain config value can be meant for a parameter of this type.

    >>> fits("abc", float), fits(1, float), fits(True, int), fits(None, int | None)
    (False, True, False, True)
    """
    if annotation is Any or (isinstance(value, dict) and "_target_" in value):
        return True
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in get_args(annotation))
    if origin is Literal:
        return value in get_args(annotation)
    expected = origin or annotation
    if not isinstance(expected, type):
        return True
    return _is_a(value, expected)


def _is_a(value: Any, expected: type) -> bool:
    if expected is NoneType or value is None:
        return expected is NoneType and value is None
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if issubclass(expected, str | bool):
        return isinstance(value, expected)
    if isinstance(value, list):
        return issubclass(list, expected) or issubclass(expected, tuple)
    if isinstance(value, dict):
        return not issubclass(expected, list | tuple)
    return isinstance(value, str) and issubclass(expected, Path)


def _wrong_type(key: str, value: Any, annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        choices = [str(choice) for choice in get_args(annotation)]
        return f"{key}: expected one of {', '.join(choices)}, got {value!r}.{nearest(str(value), choices)}"
    return f"{key}: expected {_type_name(annotation)}, got {value!r}"


def _type_name(annotation: Any) -> str:
    """How a type reads in a message.

    >>> _type_name(float | None)
    'a number or null'
    """
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text", NoneType: "null"}
    if get_origin(annotation) in (Union, UnionType):
        plain_ones = [one for one in get_args(annotation) if one in names or get_origin(one)]
        return " or ".join(dict.fromkeys(_type_name(one) for one in plain_ones or get_args(annotation)))
    plain = get_origin(annotation) or annotation
    return names.get(plain, str(getattr(plain, "__name__", plain)))
