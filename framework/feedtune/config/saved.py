"""Configs that come from a folder: what they would run, or call, of their own is asked for first.

A run folder may have been edited, or downloaded. Its config is followed as far as it names parts of
feedtune and of installed plugins. Whatever else it names is not the user's word: the prefixes of its `trust`,
plugins in a folder (`plugins_path`), functions given by their path (`reward.path`), servers that data and
secrets would be sent to (`reward.url`). Those count only with `--trust`, unless the command itself was told
of them (`trust=[mine]`, `reward.path=./mine.py:score`). A class says which of its arguments are of that kind
by its attribute `needs_trust`, a tuple of their names.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from feedtune.config.compose import targets_in, to_plain
from feedtune.config.discovery import options_of
from feedtune.config.local_plugins import KEY as PLUGINS_PATH
from feedtune.config.trust import is_code_of_user, is_trusted, is_under, resolve, trust_code
from feedtune.config.types import fits, wrong_type
from feedtune.errors import UserError, one_line

CONFIG = Path(".hydra") / "config.yaml"
"""Of a run folder: what it was started with, as Hydra wrote it."""

OVERRIDES = Path(".hydra") / "overrides.yaml"
"""Of a run folder: what was typed."""


def code_in(plain: Any) -> Iterator[tuple[str, str]]:
    """The key and value of every argument that needs trust."""
    for key, node in targets_in(plain):
        path = node["_target_"]
        if not (isinstance(path, str) and is_trusted(path)):
            continue  # refused elsewhere, before anything is built
        for name in getattr(resolve(path, f"{key}._target_"), "needs_trust", ()):
            if isinstance(node.get(name), str):
                yield f"{key}.{name}", node[name]


def how_to_go_on(folder: Path) -> str:
    """The command that goes on with the run of a folder, as the process that runs it may advise.

    It has `--trust` where the config names code or servers of its own: the user has agreed to them once.

    >>> how_to_go_on(Path("runs/my run"))
    "feedtune resume 'runs/my run'"
    """
    return f"feedtune resume {shlex.quote(str(folder))}{' --trust' if asks_for_trust(folder) else ''}"


def asks_for_trust(folder: Path) -> bool:
    """Whether the config of a run folder names code or servers that `resume` and `evaluate` ask about."""
    try:
        plain = to_plain(OmegaConf.load(folder / CONFIG))
        return bool(plain.get("trust") or plain.get(PLUGINS_PATH) or any(code_in(plain)))
    except (OSError, ValueError, AttributeError, YAMLError, OmegaConfBaseException, UserError):
        return False


def remember_code(config: DictConfig) -> None:
    """What needs trust in a config that the user typed, or agreed to, has it while this process lives."""
    trust_code(path for _, path in code_in(to_plain(config)))


def permitted(
    config: DictConfig, where: Path, trusting: bool = False, typed: Sequence[str] = ()
) -> DictConfig:
    """The config of a run folder, if it runs and calls nothing of its own or the user has said that it may.

    Args:
        config: as it was saved; with overrides, as it was composed again.
        where: its file, for the message.
        trusting: `--trust` was given.
        typed: the overrides of this very command; what they set is the user's word.

    Raises:
        UserError: naming the code, and `--trust`; or its folder of plugins is not there any more.
    """
    plain = to_plain(config)
    refuse_moved(plain.get(PLUGINS_PATH), where)
    if trusting:
        return config
    asked = [*_trusted_in(plain, typed), *_named_in(plain, typed)]
    if asked:
        raise _not_permitted(where, asked)
    return config


def refuse_moved(folder: Any, where: Path) -> None:
    """Refuse a folder of plugins that has gone elsewhere: to trust it would not bring it back.

    Args:
        folder: the `plugins_path` of a saved config.
        where: that config's file, for the message.

    Raises:
        UserError: naming the folder, and how to name its new place.
    """
    if isinstance(folder, str) and not Path(folder).is_dir():
        raise UserError(
            f"{where}: {PLUGINS_PATH}: {folder}: there is no such folder any more. If it has been moved, "
            f"name its new place: {PLUGINS_PATH}=FOLDER"
        )


def _not_permitted(where: Path, asked: Sequence[str]) -> UserError:
    return UserError(
        f"{where}: this would run or call what the run itself names: {', '.join(asked)}. "
        "If you know what it does, add --trust"
    )


def saved_overrides(path: Path, trusting: bool = False, typed: Sequence[str] = ()) -> list[str]:
    """The overrides that a run folder says it was started with, without those that widen what is trusted.

    Args:
        path: of the run folder.
        trusting: `--trust` was given.
        typed: the overrides of this very command.

    Raises:
        UserError: the file cannot be read as a list of overrides, or it names a folder of plugins that the
            user has not named.
    """
    if not path.is_file():
        return []
    try:
        found = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        lines = [str(line) for line in found] if isinstance(found, list) else []
        parsed = _parsed(lines)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, HydraException) as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from error
    if not trusting:  # composing alone finds the options of such a folder, and the modules that they name
        _refuse_folders(path, parsed, typed)
    widening = {"hydra"} if trusting else {"hydra", "trust"}
    folders = [line for line, one in zip(lines, parsed, strict=True) if one.key_or_group == PLUGINS_PATH]
    return [
        line
        for line, one in zip(lines, parsed, strict=True)
        if line not in folders[:-1]  # a resumed run may have been told of another
        and one.key_or_group.replace("/", ".").split(".")[0] not in widening
    ]


def _refuse_folders(where: Path, saved: Sequence[Any], typed: Sequence[str]) -> None:
    folder = _saved_folder(saved, typed)
    if folder is not None and not is_code_of_user(folder):
        raise _not_permitted(where, [f"{PLUGINS_PATH}={folder}"])


def _saved_folder(saved: Sequence[Any], typed: Sequence[str]) -> str | None:
    """The folder of plugins that saved overrides name; None: none, or the command has named another."""
    if any(one.key_or_group == PLUGINS_PATH for one in _parsed(typed)):
        return None
    found = [one.value() for one in saved if one.key_or_group == PLUGINS_PATH]
    return str(found[-1]) if found and found[-1] else None


def _trusted_in(plain: dict[str, Any], typed: Sequence[str]) -> list[str]:
    """What the config's own `trust` would let through: the targets, or else the prefixes themselves."""
    prefixes = plain.get("trust") or []
    if not fits(prefixes, list[str]):
        raise UserError(wrong_type("trust", prefixes, list[str]))
    if any(one.key_or_group == "trust" for one in _parsed(typed)):
        return []  # composed again: the command's own word has replaced the saved one
    widened = [prefix for prefix in prefixes if not is_trusted(prefix)]
    named = [
        f"{key}._target_={node['_target_']}"
        for key, node in targets_in(plain)
        if isinstance(node["_target_"], str) and is_under(node["_target_"], widened)
    ]
    return named or [f"trust=[{prefix}]" for prefix in widened]


def _named_in(plain: dict[str, Any], typed: Sequence[str]) -> list[str]:
    """What needs trust, but for what the command set itself or what comes with an option it chose."""
    parsed = _parsed(typed)
    keys = {one.key_or_group for one in parsed}
    named = code_in(plain)
    if isinstance(plain.get(PLUGINS_PATH), str):
        named = chain([(PLUGINS_PATH, plain[PLUGINS_PATH])], named)
    chosen = {one.key_or_group.split("/")[0] for one in parsed if options_of(one.key_or_group)}
    return [
        f"{key}={path}"
        for key, path in named
        if not (key in keys or key.split(".")[0] in chosen or is_code_of_user(path))
    ]


def _parsed(typed: Sequence[str]) -> list[Any]:
    return list(OverridesParser.create().parse_overrides(list(typed)))
