"""Hydra's errors in words for users: its lists of choices stay, its internals go."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from feedtune.config.discovery import OPTIONAL, options_of, providers
from feedtune.config.hydra_setup import composed
from feedtune.config.plugin_problems import problems, refuse_choices
from feedtune.config.secrets import redacted
from feedtune.errors import UserError, missing_extra, nearest, one_line

_NO_OPTION = "Config group override"
"""How Hydra's ValueError begins where a group is given something else than the name of an option."""

EXTRAS = {
    ("hydra/sweeper", "optuna"): "hydra-optuna-sweeper",
    ("hydra/launcher", "joblib"): "hydra-joblib-launcher",
}
"""Options of Hydra's that a package of an extra brings."""

COMPOSING = (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError)
"""What Hydra and OmegaConf raise about a user's overrides."""


@contextmanager
def explained(overrides: Sequence[str], config_name: str = "train") -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise about a user's overrides into a `UserError`.

    Args:
        overrides: as the user typed them.
        config_name: the YAML in conf/ that they apply to.
    """
    try:
        yield
    except COMPOSING as error:
        raise _all(error, overrides, config_name) from error
    except ValueError as error:
        if not str(error).startswith(_NO_OPTION):
            raise
        raise UserError(explain(error, overrides, config_name)) from error


class ComposeError(UserError):
    """Overrides that cannot be composed, a line each; `left` are those that can."""

    def __init__(self, message: str, left: Sequence[str]) -> None:
        super().__init__(message)
        self.left = left


def _all(error: Exception, overrides: Sequence[str], config_name: str) -> ComposeError:
    """Hydra stops at the first override that it cannot place: the others are composed without it."""
    lines, left = [explain(error, overrides, config_name)], list(overrides)
    found: Exception | None = error
    while found is not None:
        wrong = _named_in(found, left)
        left = [one for one in left if one not in wrong]
        if not wrong:
            return ComposeError("\n".join(lines), [])
        found = None
        try:
            composed([one for one in left if not _is_swept(one)], config_name)
        except COMPOSING as another:
            found = another
            lines.append(explain(another, left, config_name))
    return ComposeError("\n".join(lines), left)


def _named_in(error: Exception, overrides: Sequence[str]) -> list[str]:
    """The overrides that an error is about."""
    if isinstance(error, OverrideParseException):
        return [one for one in overrides if one == error.override]
    names = {*re.findall(r"'([^']+)'", str(error)), getattr(error, "full_key", None)}
    missing = getattr(error, "missing_cfg_file", None) or ""
    names |= {missing.rpartition("/")[0]}
    return [one for one in overrides if {one, *_keys_of(one)} & names]


def _keys_of(override: str) -> set[str]:
    try:
        one = OverridesParser.create().parse_override(override)
    except HydraException:
        return set()
    return {one.key_or_group, one.get_key_element()}


def _is_swept(override: str) -> bool:
    try:
        return bool(OverridesParser.create().parse_override(override).is_sweep_override())
    except HydraException:
        return False


def explain(error: Exception, overrides: Sequence[str] = (), config_name: str = "train") -> str:
    """One message for an error that Hydra or OmegaConf raised while composing."""
    text = str(error).strip()
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    broken = _broken_choice(overrides)
    if broken or isinstance(error, YAMLError | UnicodeDecodeError):
        return broken or _unreadable_file(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, wrong = error.missing_cfg_file.rpartition("/")
        return _no_such_option(group, wrong, error.options)
    if text.startswith(_NO_OPTION):
        return _no_option(overrides)
    if text.startswith("BasicSweeper does not support sweep type"):
        return (
            "a grid takes its values from a list, as in optimizer.lr=1e-4,1e-3; interval(...) is for "
            "hparams_search=optuna"
        )
    lost = re.match(r"Override (.+) looks like a config group override, but config group '([^']+)'", text)
    if lost:
        return _no_such_group(lost[1], lost[2])
    ambiguous = re.match(r"Ambiguous value for argument '([^']+)'", text)
    if ambiguous:
        key, _, values = ambiguous[1].partition("=")
        return f"{key}={values}: to run once with each, add --multirun; for a list, write '{key}=[{values}]'"
    unknown = re.match(r"Could not override '([^']+)'", text)  # "In 'x': ..." is about a file's own defaults
    if unknown and "No match in the defaults list" in text and options_of(unknown[1]):
        return _written_out(unknown[1], overrides)
    if unknown:
        return _unknown_key(unknown[1], overrides, config_name)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    where = getattr(error, "full_key", None)
    return f"{where}: {lines[0]}" if where else " ".join(lines[:3])


def _unreadable(error: OverrideParseException) -> str:
    shown = redacted(error.override)
    if shown != error.override:
        return (
            f"'{shown}': it looks like a key or password; keep it in an environment variable and give that "
            "one's name"
        )
    if "=" not in error.override and not error.override.startswith("~"):
        return f"'{error.override}': expected key=value, such as optimizer.lr=1e-4"
    reason = error.message.strip().splitlines()[0]
    return (
        f"'{error.override}': {reason}. Quote a value with blanks or special characters twice, as in "
        "task.path='\"my file.jsonl\"'"
    )


def _broken_choice(overrides: Sequence[str]) -> str | None:
    """What is wrong with the plugins that these overrides choose options of, where that is known."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    try:
        refuse_choices({one.key_or_group: one.value() for one in parsed if options_of(one.key_or_group)})
    except UserError as problem:
        return str(problem)
    return None


def _unreadable_file(error: Exception) -> str:
    """An option's file, of which Hydra says no name; a plugin's is among its problems."""
    found = [str(one) for one in problems() if "cannot be read" in one.what]
    return "\n".join(found) or one_line(error)


def _no_such_option(group: str, wrong: str, options: Sequence[str]) -> str:
    if (group, wrong) in EXTRAS:
        return str(missing_extra(EXTRAS[group, wrong], "sweeps", f"{group}={wrong}"))
    hint = (_why_left_out(wrong) if group == "optimizer" else "") or nearest(wrong, options)
    return f"{group}={wrong}: there is no such option.{hint} Options of '{group}': {', '.join(options)}"


def _why_left_out(optimizer: str) -> str:
    from feedtune.optimizers import LEFT_OUT  # it imports torch, which takes a second

    why = LEFT_OUT.get(optimizer.lower())
    return f" That optimiser of torch is left out: {why}." if why else ""


def _no_such_group(override: str, wrong: str) -> str:
    top = wrong.partition("/")[0]
    if top != wrong and options_of(top):  # +reward/source@reward.sources.len=length
        return f"{override}: expected an option of '{top}', as in {override.replace(wrong, top, 1)}"
    groups = sorted({group for provider in providers() for group, _ in provider.options()})
    return f"{override}: there is no group '{wrong}'.{nearest(wrong, groups)} Groups: {', '.join(groups)}"


def _no_option(overrides: Sequence[str]) -> str:
    """For `optimizer=null` and `reward=0.5`: what a group takes."""
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        group, value = override.key_or_group, override.value()
        options = options_of(group)
        if options and not isinstance(value, str | list):
            hint = f"; ~{group} leaves it out" if group in OPTIONAL else ""
            return f"{override.input_line}: expected an option of '{group}': {', '.join(options)}{hint}"
    return "a group takes the name of one of its options"


def _written_out(group: str, overrides: Sequence[str]) -> str:
    """An option chosen for a main file of the user's own that has no such choice: a printed config."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    typed = next((str(one.input_line) for one in parsed if one.key_or_group == group), group)
    return (
        f"{typed}: the file of --config-name writes its options out, so '{group}' cannot be chosen any more; "
        f"values can be set ({group}.KEY=VALUE). A file that is to take options begins with a defaults list"
    )


def _unknown_key(key: str, overrides: Sequence[str], config_name: str) -> str:
    """Names the keys that stand beside the one that does not exist."""
    parent, _, name = key.rpartition(".")
    top = node = _chosen_options(overrides, config_name)
    for part in parent.split(".") if parent else []:
        node = node.get(part) if hasattr(node, "get") else None
    group = key.partition(".")[0]
    if not node and parent == group and options_of(group):
        return f"{key}: the run has no '{group}'; choose one of {', '.join(options_of(group))} by {group}=..."
    if group not in top:  # a key that is added there would be refused
        known = [str(one) for one in top if one != "hydra"]
        hint = nearest(group, known)
        return f"{key}: there is no such key in the config.{hint} It has: {', '.join(known)}"
    if not hasattr(node, "keys"):
        return f"{key}: there is no such key; +{key}=... adds it"
    known = [str(k) for k in node.keys()]  # noqa: SIM118 - a DictConfig
    if name in known:  # key={inner: value}, and the mapping there has no such inner key
        given = _value_of(key, overrides)
        inner = next((k for k in given if k not in (node[name] or {})), None)
        if inner is not None:
            return _unknown_key(f"{key}.{inner}", overrides, config_name)
    hint = nearest(name, known)
    return f"{key}: there is no such key in '{parent}'.{hint} It has: {', '.join(known)}; +{key}=... adds one"


def _value_of(key: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The mapping that the user gave for a key."""
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        value = override.value()
        if override.key_or_group == key and isinstance(value, dict):
            return {str(name): inner for name, inner in value.items()}
    return {}


def _chosen_options(overrides: Sequence[str], config_name: str) -> Any:
    """The config that the choices of options alone give: its keys are those that the user can set."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    chosen = [str(one.input_line) for one in parsed if options_of(one.key_or_group)]
    return composed(chosen, config_name)
