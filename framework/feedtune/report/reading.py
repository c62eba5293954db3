"""A run folder as values: its numbers, samples, evaluation, command and configuration.

What cannot be read is refused by file and line, and no link is followed out of the folder: others may have
made it, and the page would show what the link leads to.
"""

from __future__ import annotations

import csv
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from feedtune.errors import UserError
from feedtune.report.reliability import Bin, read_bins

RUN_FILES = ("metrics.csv", "samples.jsonl", "evaluation.json")
CONFIG = ".hydra/config.yaml"
STARTED_WITH = (".hydra/overrides.yaml", CONFIG)

CREDITS = ("advantage", "kl")
"""Per-token numbers that a sample's record may have beside its `tokens`."""


@dataclass(frozen=True)
class Credit:
    """What the tokens of a response earned: as many numbers as tokens, NaN where a token has none."""

    tokens: Sequence[str]
    values: Mapping[str, Sequence[float]]  # by name, of CREDITS


@dataclass(frozen=True)
class Answer:
    """What the policy said to one prompt, and what it earned."""

    prompt: str
    response: str
    reward: float  # NaN: not scored
    parts: Mapping[str, float] = field(default_factory=dict)  # reward by source
    expected: Sequence[str] = ()  # the task's reference answers
    credit: Credit | None = None  # of a few samples of each rollout


@dataclass(frozen=True)
class Evaluation:
    """Answers to held-out prompts and their means."""

    metrics: Mapping[str, float]
    answers: Sequence[Answer]
    reliability: Sequence[Bin] = ()  # of a reward model


@dataclass(frozen=True)
class Run:
    """What a run folder tells."""

    name: str
    command: str | None
    config: str | None
    metrics: Mapping[str, NDArray[np.float64]]  # [epochs] each, "epoch" among them; NaN: no value
    samples: Mapping[float, Sequence[Answer]]  # by epoch
    after: Evaluation | None
    before: Evaluation | None  # the same prompts answered by the policy that training began with


def read_run(folder: Path, name: str) -> Run:
    """What the folder tells; `name` is what the page calls the run.

    Raises:
        UserError: it is no run folder, or a file in it cannot be parsed: the line is named.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a run folder")
    if not _is_run(folder):
        inside = ", ".join(sorted(child.name for child in folder.iterdir() if _is_run(child)))
        hint = f" It holds runs: {inside}." if inside else ""
        raise UserError(f"{folder}: not a run folder: expected one of {', '.join(RUN_FILES)} in it.{hint}")
    _check_inside(folder)
    after, before = _read_evaluation(folder / "evaluation.json")
    return Run(
        name=name,
        command=_read_command(folder / ".hydra" / "overrides.yaml"),
        config=_read(folder / CONFIG),
        metrics=_read_metrics(folder / "metrics.csv"),
        samples=_read_samples(folder / "samples.jsonl"),
        after=after,
        before=before,
    )


def _check_inside(folder: Path) -> None:
    """Refuse links out of a folder that others may have made: the page would show what they lead to."""
    for name in (*RUN_FILES, *STARTED_WITH):
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"{folder / name}: a link that leads out of the run folder, so it is no file of it"
            )


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in RUN_FILES)


def _read(path: Path) -> str | None:
    """The file's text; None where there is no such file."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected UTF-8 text; byte {error.start} is not") from error


def _read_command(path: Path) -> str | None:
    """The command line that `overrides.yaml` stands for."""
    text = _read(path)
    if text is None:
        return None
    try:
        overrides = OmegaConf.to_container(OmegaConf.create(text))
    except (YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(overrides, list):
        raise UserError(f"{path}: expected a list of overrides, got {text[:40]!r}")
    return shlex.join(["feedtune", "train", *map(str, overrides)])


def _read_metrics(path: Path) -> dict[str, NDArray[np.float64]]:
    text = _read(path)
    if text is None:
        return {}
    try:
        header, *rows = list(csv.reader(text.splitlines())) or [[]]
    except csv.Error as error:
        raise UserError(f"{path}: not a table of comma-separated values ({error})") from error
    if header[:1] != ["epoch"] or len(set(header)) < len(header):
        raise UserError(f"{path}:1: expected a header of distinct names that starts with 'epoch'")
    table = np.empty((len(rows), len(header)))
    for index, row in enumerate(rows):
        where = f"{path}:{index + 2}"
        if len(row) != len(header):
            raise UserError(f"{where}: expected {len(header)} cells as in the header, got {len(row)}")
        table[index] = [
            _number(cell or None, f"{where}: {name}") for name, cell in zip(header, row, strict=True)
        ]
    table[np.abs(table) > 1e100] = np.nan  # infinite or beyond drawing: a gap in the curve
    return dict(zip(header, table.T, strict=True))


def _read_samples(path: Path) -> dict[float, list[Answer]]:
    samples: dict[float, list[Answer]] = {}
    for number, line in enumerate((_read(path) or "").split("\n"), 1):
        if line.strip():
            where, row = f"{path}:{number}", _json(line, path, number)
            answer = _answer(row, where)
            samples.setdefault(_number(str(row.get("epoch")), f"{where}: 'epoch'"), []).append(answer)
    return samples


def _read_evaluation(path: Path) -> tuple[Evaluation | None, Evaluation | None]:
    """What the policy answered after training, and before it where that was asked for."""
    text = _read(path)
    if text is None:
        return None, None
    found = _json(text, path)
    after = _evaluation(found, str(path))
    if found.get("reference") is None:
        return after, None
    before = _evaluation(found["reference"], f"{path}: reference")
    if [a.prompt for a in before.answers] != [a.prompt for a in after.answers]:
        raise UserError(f"{path}: reference.records: expected the prompts of records in the same order")
    return after, before


def _evaluation(value: Any, where: str) -> Evaluation:
    found = value if isinstance(value, dict) else {}
    metrics, records = found.get("metrics"), found.get("records")
    if not isinstance(metrics, dict) or not isinstance(records, list):
        raise UserError(f"{where}: expected an object with 'metrics', an object, and 'records', a list")
    return Evaluation(
        {name: _number(number, f"{where}: metrics.{name}") for name, number in metrics.items()},
        [_answer(record, f"{where}: records[{i}]") for i, record in enumerate(records)],
        read_bins(found.get("reliability"), f"{where}: reliability"),
    )


def _json(text: str, path: Path, line: int = 1) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        line += getattr(error, "lineno", 1) - 1
        reason = getattr(error, "msg", "a number too long or nested too deeply")
        raise UserError(f"{path}:{line}: not valid JSON ({reason})") from error


def _answer(value: Any, where: str) -> Answer:
    row = value if isinstance(value, dict) else {}
    for key in ("prompt", "response"):
        if not isinstance(row.get(key), str):
            raise UserError(f"{where}: expected an object whose '{key}' is a text, got {str(value)[:60]!r}")
    expected = row.get("reference") or []
    return Answer(
        prompt=row["prompt"],
        response=row["response"],
        reward=_number(row.get("reward"), f"{where}: 'reward'"),
        parts={k[7:]: _number(v, f"{where}: '{k}'") for k, v in row.items() if k.startswith("reward/")},
        expected=[expected] if isinstance(expected, str) else [str(text) for text in expected],
        credit=_credit(row, where),
    )


def _credit(row: Mapping[str, Any], where: str) -> Credit | None:
    tokens = row.get("tokens")
    if tokens is None:
        return None
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise UserError(f"{where}: 'tokens': expected a list of texts, got {str(tokens)[:40]!r}")
    given = {name: row[name] for name in CREDITS if row.get(name) is not None}
    for name, values in given.items():
        if not isinstance(values, list) or len(values) != len(tokens):
            got = f"{len(values)} of them" if isinstance(values, list) else repr(str(values)[:40])
            raise UserError(f"{where}: '{name}': expected {len(tokens)} numbers, one a token, got {got}")
    return Credit(
        tokens,
        {name: [_finite(v, f"{where}: '{name}'") for v in values] for name, values in given.items()},
    )


def _finite(value: Any, where: str) -> float:
    """The value as a float; NaN stands for what cannot be drawn."""
    number = _number(value, where)
    return number if math.isfinite(number) else math.nan


def _number(value: Any, where: str) -> float:
    """The value as a float; None, which is an empty cell or JSON's null, is NaN."""
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: expected a number, got {str(value)[:40]!r}") from None
