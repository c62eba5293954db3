"""What is wrong with the plugins that are here, and what to do about it.

All of it but `broken_classes` is seen without importing a plugin. A plugin with a problem stops nobody who
does not choose the options that the problem is about (`refuse_choices`). feedtune's own options cannot be
taken over: where a plugin offers one of the same name, feedtune's is the one that is chosen. Where two
plugins offer the same option neither can be chosen.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from feedtune.config.discovery import Provider, providers, third_party
from feedtune.config.option_files import class_of, mapping_of
from feedtune.config.secrets import redacted
from feedtune.config.trust import loaded
from feedtune.errors import UserError, nearest
from feedtune.text.visible import plain

Option = tuple[str, str]
"""(group, name)."""

WITH_CLASS = (
    *("algorithm", "backbone", "buffer", "checkpoint", "collector", "constitution", "judge"),
    *("optimizer", "reward", "rubric", "scheduler", "task", "tokenizer", "trainer"),
)
"""Groups whose options are a `_target_` and its arguments; those of others set several things, or nothing."""


@dataclass(frozen=True)
class Problem:
    """Something wrong with a plugin."""

    provider: Provider
    what: str
    remedy: str
    options: tuple[Option, ...] = ()  # that it is about
    blocks: bool = True  # those options cannot be chosen

    def __str__(self) -> str:
        what = re.sub(r"\. Did you mean ('.*')\?$", r" (did you mean \1?)", self.what)
        return f"{self.provider.title}: {what.rstrip('.')}; {self.remedy}"


def problems() -> list[Problem]:
    """What can be seen without importing a plugin, plugin by plugin."""
    found = [problem for provider in third_party() for problem in _seen_in(provider)]
    return [*found, *_shadowed()]


def _seen_in(provider: Provider) -> Iterator[Problem]:
    if provider.problem:
        yield Problem(provider, provider.problem, provider.remedy)
    elif not provider.options():
        what = f"{provider.conf} holds no option: no file <group>/<option>.yaml"
        yield Problem(provider, what, provider.remedy)
    unfit = provider.misfit()
    if unfit is not None:
        yield Problem(provider, *unfit, tuple(_reachable(provider)))
    groups = {group for one in providers() if one.own for group, _ in one.options()}
    for group, option in provider.options():
        problem = _unreadable(provider, group, option)
        if problem:
            what = f"conf/{group}/{option}.yaml: {problem}"
            yield Problem(provider, what, provider.remedy, ((group, option),))
        if group not in groups and nearest(group, groups):
            what = f"conf/{group}/{option}.yaml: feedtune has no group '{group}'.{nearest(group, groups)}"
            yield Problem(provider, what, provider.remedy, ((group, option),), blocks=False)


def _unreadable(provider: Provider, group: str, option: str) -> str | None:
    """Why the file of an option describes nothing."""
    try:
        mapping_of(provider.file(group, option), strict=True)
        lacks = group in WITH_CLASS and class_of(provider, group, option) is None
    except UserError as error:
        return str(error)
    return f"it has no _target_, the class or function that makes the {group}" if lacks else None


def _shadowed() -> Iterator[Problem]:
    """Options that more than one offers, for those who offer the same ones together."""
    together: dict[tuple[Provider, ...], list[Option]] = {}
    for option, offering in _offers().items():
        if len(offering) > 1:
            together.setdefault(tuple(offering), []).append(option)
    for (first, *others), options in together.items():
        names = _named(options)
        if first.own:
            for other in others:
                what = f"{names}: feedtune has an option of this name, and that is the one that is chosen"
                remedy = "give it another name" if other.folder else other.remedy
                yield Problem(other, what, remedy, tuple(options), blocks=False)
        else:
            rivals = " and ".join(other.title for other in others)
            what = f"{names}: offered by {rivals} too, so that none of them can be chosen"
            yield Problem(first, what, _one_of([first, *others]), tuple(options))


def _one_of(rivals: Iterable[Provider]) -> str:
    names = [p.distribution for p in rivals if p.folder is None]
    local = any(p.folder is not None for p in rivals)
    return ("give the folder's another name, or " if local else "keep one: ") + " or ".join(
        f"pip uninstall {name}" for name in dict.fromkeys(names)
    )


def _offers() -> dict[Option, list[Provider]]:
    """Who offers each option, as Hydra looks for it."""
    found: dict[Option, list[Provider]] = {}
    for provider in providers():
        for option in provider.options():
            found.setdefault(option, []).append(provider)
    return found


def _reachable(provider: Provider) -> list[Option]:
    """Its options that are not feedtune's own."""
    own = {option for one in providers() if one.own for option in one.options()}
    return [option for option in provider.options() if option not in own]


def _named(options: Iterable[Option], most: int = 5) -> str:
    """reward=a, reward=b and 3 more."""
    words = [f"{group}={option}" for group, option in options]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def refuse_choices(choices: Mapping[str, Any]) -> None:
    """Refuse what was chosen among options that have a problem.

    Args:
        choices: option by group, or by `group@package`, as Hydra keeps them.

    Raises:
        UserError: naming the plugin, its distribution and version, and what to do.
    """
    if not third_party():
        return
    chosen = _options_in(choices)
    found = [problem for problem in problems() if problem.blocks]
    lines = [f"{_named(sorted(hit))}: {one}" for one in found if (hit := chosen.intersection(one.options))]
    if lines:
        raise UserError("\n".join(lines))


def _options_in(choices: Mapping[str, Any]) -> set[Option]:
    return {
        (key.split("@")[0], str(name))
        for key, value in choices.items()
        for name in (value if isinstance(value, list | tuple) else [value])
    }


def broken_classes() -> list[Problem]:
    """Options whose class cannot be had, or lacks one of their keys. Imports the plugins, nothing of ours."""
    found = []
    for provider in third_party():
        options = [] if provider.misfit() else _reachable(provider)
        for group, option in options:
            with contextlib.suppress(UserError):  # `problems` says so
                path = class_of(provider, group, option)
                said = mapping_of(provider.file(group, option))
                problem = None if path is None else _class_problem(path, f"conf/{group}/{option}.yaml", said)
                if problem:
                    found.append(Problem(provider, problem, provider.remedy, ((group, option),)))
    return found


def _class_problem(path: str, file: str, said: Mapping[str, Any]) -> str | None:
    """Why a class cannot be made of what an option's file says."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # ours is for the table, or for a script
            parameters = inspect.signature(loaded(path, file)).parameters
    except UserError as error:
        return str(error)
    except (TypeError, ValueError):  # of some that are written in C nothing is known
        return None
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return None
    for key in said:
        if key not in parameters and key != "defaults" and not (key.startswith("_") and key.endswith("_")):
            return f"{file}: {key}: {path} has no such argument.{nearest(key, parameters)}"
    return None


def _chosen_by(overrides: Sequence[str]) -> set[Option]:
    """The options that overrides choose; none where they cannot be read, which is told elsewhere."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException:
        return set()
    return _options_in({one.key_or_group: one.value() for one in parsed})


_said: set[str] = set()
"""Lines that this process has said: the stages of a pipeline share one."""


def warn(overrides: Sequence[str] = ()) -> None:
    """One line on standard error for every problem that is seen without importing.

    Not for those of options that these overrides choose: `refuse_choices` will say it.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return  # of several processes, one speaks
    found = problems()
    chosen = _chosen_by(overrides) if found else set()
    told = [str(one) for one in found if not (one.blocks and chosen.intersection(one.options))]
    for line in dict.fromkeys(told):
        if line not in _said:
            _said.add(line)
            print(f"feedtune: {plain(redacted(line))}", file=sys.stderr)
