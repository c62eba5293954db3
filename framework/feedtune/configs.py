"""From a composed config to objects: types are checked, targets must be trusted, errors name the key."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from inspect import Parameter
from typing import Any, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from feedtune import hydra_setup
from feedtune.config_types import fields_of, fits, wrong_type
from feedtune.discovery import own_conf, providers
from feedtune.errors import UserError, nearest, one_line
from feedtune.hydra_errors import explained

TRUSTED = ("feedtune", "feedtune_plugins", "lightning", "torch.optim", "torchmetrics")
"""Import prefixes that `_target_` may name, beside those of installed plugins and the user's own."""

FLAGS = ("_target_", "_partial_", "_convert_", "_recursive_")
"""Keys of a node that are about its construction. Values are always plain, so `_convert_` changes nothing."""

MISSING = "???"
"""OmegaConf's sign for a value that has to be given."""

_trusted_by_user: list[str] = []


def compose_config(overrides: Sequence[str] = (), config_name: str = "train") -> DictConfig:
    """The config that `feedtune train [overrides]` would run.

    Raises:
        UserError: an unknown group, option or key, or bad override syntax.
    """
    hydra_setup.register()
    application = GlobalHydra.instance().hydra  # inside `feedtune train` there is one; it steps aside
    GlobalHydra.instance().clear()
    try:
        with (
            explained(overrides, config_name),
            initialize_config_dir(str(own_conf()), version_base="1.3"),
        ):
            return compose(config_name, list(overrides))
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = application


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


def build(config: Any, key: str, **given: Any) -> Any:
    """The object that a config node describes; `given` are arguments that only exist at run time.

    Nodes with `_partial_: true` give a function that calls their target later. An empty node gives None.
    What is called is what `resolve` has let through: nothing is looked up again.

    Raises:
        UserError: an untrusted target, or a constructor that refuses its arguments.
    """
    plain = to_plain(config)
    if not plain:
        return None
    if not (isinstance(plain, dict) and "_target_" in plain):
        raise UserError(f"{key}: expected a mapping with a _target_, got {plain!r}")
    return _made(plain, key, given)


def _made(node: Any, key: str, given: Mapping[str, Any] | None = None) -> Any:
    """A plain node with every `_target_` in it called, innermost first."""
    if isinstance(node, list):
        return [_made(value, f"{key}[{index}]") for index, value in enumerate(node)]
    if not isinstance(node, dict):
        return node
    if "_target_" not in node:
        return {name: _made(value, f"{key}.{name}") for name, value in node.items()}
    target = resolve(node["_target_"], f"{key}._target_")
    arguments = {name: value for name, value in node.items() if name not in FLAGS and value != MISSING}
    if node.get("_recursive_", True):
        arguments = {name: _made(value, f"{key}.{name}") for name, value in arguments.items()}
    call = partial(_called, target, key, **arguments)
    return call if node.get("_partial_", False) else call(**(given or {}))


def _called(target: Callable[..., Any], key: str, /, *args: Any, **arguments: Any) -> Any:
    """Call a target; what it says about its arguments names the key."""
    parameters = inspect.signature(target).parameters.values()
    for parameter in list(parameters)[len(args) :]:
        named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if named and parameter.default is parameter.empty and parameter.name not in arguments:
            raise UserError(f"{key}.{parameter.name}: not given, and it has no default")
    try:
        return target(*args, **arguments)
    except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
        raise UserError(f"{key}: {one_line(error)}") from error


def to_plain(config: Any) -> Any:
    """Plain dicts and lists, interpolations resolved."""
    if not OmegaConf.is_config(config):
        return config
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).splitlines()[0]
        raise UserError(f"{error.full_key}: {reason}") from error


def said_of_origin(config: DictConfig, message: str) -> str:
    """A message that begins with a key, about the key that this one takes its value from, if it does.

    >>> taken = OmegaConf.create({"backbone": {"name": "x"}, "tokenizer": {"name": "${backbone.name}"}})
    >>> said_of_origin(taken, "tokenizer.name: no folder 'x'")
    "backbone.name: no folder 'x'"
    """
    key, colon, rest = message.partition(":")
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if re.fullmatch(r"[\w.]+", parent) else None
    if not isinstance(node, DictConfig):
        return message
    raw = OmegaConf.to_container(node, resolve=False)
    value = raw.get(name) if isinstance(raw, dict) else None
    origin = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    return f"{origin[1]}{colon}{rest}" if origin else message


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
        schema: types of the top-level values that configure no target.
        groups: the other top-level keys.

    Raises:
        UserError: with every problem, one a line.
    """
    plain = to_plain(config)
    known = [*schema, *groups]
    problems = [f"{name}: there is no such key.{nearest(name, known)}" for name in plain if name not in known]
    lacking = [name for name in known if name not in plain]
    problems += [f"the config lacks {', '.join(lacking)}"] if lacking else []
    problems += [f"{key}: not given; add {key}=... to the command" for key in _not_given(plain, "")]
    for name, annotation in schema.items():
        if name in plain:
            problems += _value_problems(plain[name], annotation, name)
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
        if name in FLAGS:
            continue
        if name not in parameters:
            if not open_ended:
                known = [p for p in parameters if p in node or parameters[p].default is not Parameter.empty]
                hint = nearest(str(name), known)
                problems.append(f"{key}.{name}: unknown key.{hint} It has: {', '.join(known)}")
        elif name in hints:
            problems += _value_problems(value, hints[name], f"{key}.{name}")
    return problems


def _value_problems(value: Any, annotation: Any, key: str) -> list[str]:
    """What is wrong with a value of this type."""
    if value == MISSING:
        return []  # said elsewhere
    fields = fields_of(annotation)
    if fields is not None and isinstance(value, dict) and "_target_" not in value:
        return _signature_problems(fields, value, key)
    return [] if fits(value, annotation) else [wrong_type(key, value, annotation)]


def _not_given(node: Any, key: str) -> Iterator[str]:
    """Full keys of the values that have to be given and are not."""
    if node == MISSING:
        yield key
    elif isinstance(node, dict):
        for name, value in node.items():
            yield from _not_given(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _not_given(value, f"{key}[{index}]")


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a constructor or function; none where they name what cannot be imported."""
    function: Any = target
    if inspect.isclass(target) and not hasattr(target, "__dataclass_fields__"):
        function = target.__init__
    try:
        return get_type_hints(inspect.unwrap(function))
    except (NameError, TypeError, AttributeError):
        return {}
