"""What tells runs apart: the keys of their configurations that differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml  # type: ignore[import-untyped]

from feedtune.errors import UserError
from feedtune.report.reading import CONFIG, Run


@dataclass(frozen=True)
class Difference:
    """A key and what each run has for it, as text; None: it has no such key."""

    key: str
    values: Sequence[str | None]


@dataclass(frozen=True)
class Comparison:
    """The configurations of runs beside one another."""

    runs: Sequence[int]  # which of the runs have one
    keys: int  # that any of them has
    differences: Sequence[Difference]  # by key


def compare(runs: Sequence[Run]) -> Comparison | None:
    """Which keys differ; None where there are not two configurations to compare.

    Raises:
        UserError: a configuration is no YAML mapping.
    """
    told = {index: run.config for index, run in enumerate(runs) if run.config is not None}
    if len(told) < 2:
        return None
    configs = [settings(text, f"{runs[index].name}: {CONFIG}") for index, text in told.items()]
    keys = sorted({key for config in configs for key in config}, key=_order)
    rows = [Difference(key, [config.get(key) for config in configs]) for key in keys]
    return Comparison(list(told), len(keys), [row for row in rows if len(set(row.values)) > 1])


def _order(key: str) -> tuple[bool, bool, list[str]]:
    """What was chosen comes first, and what only says where a run is logged last."""
    parts = key.split(".")
    return parts[0] == "logger", parts[-1] != "_target_", parts


def settings(text: str, where: str) -> dict[str, str]:
    """Every setting by its dotted key, as a command line would name it. References stay as written.

    >>> settings("seed: 7\\nalgorithm: {kl: {place: reward}, gammas: [1, 0.9]}", "config.yaml")
    {'seed': '7', 'algorithm.kl.place': 'reward', 'algorithm.gammas': '[1, 0.9]'}
    """
    try:
        found = yaml.load(text, Loader=_NoAliases)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "a value that is none, or nested too deeply"
        raise UserError(f"{where}{line}: not valid YAML ({reason})") from error
    if not isinstance(found, dict):
        raise UserError(f"{where}: expected a mapping of keys to values, got {text.strip()[:40]!r}")
    return dict(_flat(found, ""))


class _NoAliases(yaml.SafeLoader):  # type: ignore[misc]
    """YAML whose aliases are refused: a few lines of them stand for more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, "an alias", event.start_mark)
        return super().compose_node(parent, index)


def _flat(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, _written(value)


def _written(value: Any) -> str:
    """A value as JSON; a text bare, unless it would then read as something else."""
    if isinstance(value, str) and value:
        try:
            json.loads(value)
        except (ValueError, RecursionError):
            return value
    return json.dumps(value, ensure_ascii=False, default=str)
