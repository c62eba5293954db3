"""One HTML page about a run, or several side by side: numbers, curves, before and after, samples.

The page needs nothing but itself: no script, no network, no other file. Text of models, prompts and
configurations is data and is escaped; characters that would reorder or hide text are spelled out.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from feedtune.errors import UserError, missing_extra
from feedtune.text.visible import UNSEEN, plain

RUN_FILES = ("metrics.csv", "samples.jsonl", "evaluation.json")
STARTED_WITH = (".hydra/overrides.yaml", ".hydra/config.yaml")

# Order of the curves: by the first prefix that fits, then by name.
FAMILIES = ("rollout/reward", "policy/kl", "rollout/", "loss/", "policy/", "eval/", "perf/", "")

# matplotlib takes hex colours only: these stand for CSS variables while it draws, so that one picture
# serves light, dark and print. Run i has colour i mod 5 and dash i mod 4: 20 runs can be told apart.
RUN_COLOURS = {f"#0{i}0000": f"var(--run-{i})" for i in range(5)}
INK, GRID = "#060000", "#070000"
CSS_COLOURS = {**RUN_COLOURS, INK: "currentColor", GRID: "var(--grid)"}
DASHES = ((), (6, 2), (2, 2), (8, 2, 2, 2))
PICTURE = (4.2, 2.2)  # inches of 72 SVG units
SMOOTHED_FROM = 40  # epochs; shorter curves are shown as they are
EXTREMES = 3  # best and worst answers shown


@dataclass(frozen=True)
class Answer:
    """What the policy said to one prompt, and what it earned."""

    prompt: str
    response: str
    reward: float  # NaN: not scored
    parts: Mapping[str, float] = field(default_factory=dict)  # reward by source
    expected: Sequence[str] = ()  # the task's reference answers


@dataclass(frozen=True)
class Evaluation:
    """Answers to held-out prompts and their means."""

    metrics: Mapping[str, float]
    answers: Sequence[Answer]


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


def write_report(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write the report of these run folders to `out` and return it.

    The same folders give the same bytes. Nothing is written unless all of them could be read.

    Args:
        run_dirs: run folders; each holds some of `metrics.csv`, `samples.jsonl`, `evaluation.json` and
            `.hydra/`. A folder named twice counts once.
        out: the HTML file; its folder is made if need be.

    Raises:
        UserError: a folder is no run, a file cannot be parsed (its line is named), or there are curves
            to draw and matplotlib, the extra `report`, is not installed.
    """
    folders = list({Path(folder).resolve(): Path(folder) for folder in run_dirs}.values())
    if not folders:
        raise UserError("report: expected at least one run folder")
    title, names = _names([folder.resolve() for folder in folders])
    html = _page(title, [_read_run(folder, name) for folder, name in zip(folders, names, strict=True)])
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(html, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"{out}: cannot write the report ({error.strerror})") from error
    return out


def _names(folders: Sequence[Path]) -> tuple[str, list[str]]:
    """A title, and the folders' own names, or their paths below a common folder if two are namesakes."""
    common = Path(os.path.commonpath(folders))
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder.relative_to(common)) for folder in folders]
    return plain(common.name), [plain(name) for name in names]


# Reading a run folder


def _read_run(folder: Path, name: str) -> Run:
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
        config=_read(folder / ".hydra" / "config.yaml"),
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
    )


def _number(value: Any, where: str) -> float:
    """The value as a float; None, which is an empty cell or JSON's null, is NaN."""
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{where}: expected a number, got {str(value)[:40]!r}") from None


# Drawing


def _curve_names(runs: Sequence[Run]) -> list[str]:
    """Metrics that have a value in some run, in the order of their curves."""
    found = {name for run in runs for name, values in run.metrics.items() if not np.isnan(values).all()}
    family = {name: next(i for i, prefix in enumerate(FAMILIES) if name.startswith(prefix)) for name in found}
    return sorted(found - {"epoch"}, key=lambda name: (family[name], name))


def ends(run: Run, metric: str) -> tuple[float, float] | None:
    """The first and the last value of a metric; None where it has none."""
    values = run.metrics.get(metric, np.empty(0))
    known = values[~np.isnan(values)]
    return (float(known[0]), float(known[-1])) if len(known) else None


def smooth(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean over an odd window around each value, of what is there; gaps stay gaps.

    >>> smooth(np.array([0.0, 3.0, np.nan, 5.0]), 3)
    array([1.5, 1.5, nan, 5. ])
    """
    known = ~np.isnan(values)
    total = np.convolve(np.where(known, values, 0), np.ones(window), "same")
    return np.where(known, total / np.convolve(known, np.ones(window), "same").clip(min=1), np.nan)


def _draw(metric: str, runs: Sequence[Run]) -> Markup:
    """One metric of every run by epoch, as the inside of an SVG element."""
    try:
        import matplotlib
        from matplotlib.figure import Figure  # no pyplot: it keeps figures and picks a backend for all
    except ImportError as error:
        raise missing_extra("matplotlib", "report", "feedtune report") from error
    style = {"svg.fonttype": "none", "svg.hashsalt": f"feedtune {metric}", "font.size": 8}
    with matplotlib.rc_context():  # the page depends on no matplotlibrc, and leaves no trace
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=PICTURE)
        axes = figure.add_axes((0.13, 0.2, 0.85, 0.74))
        _style(axes)
        for index, run in enumerate(runs):
            if metric in run.metrics:
                _line(axes, run.metrics["epoch"], run.metrics[metric], index)
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return Markup(_inside(file.getvalue()))


def _style(axes: Any) -> None:
    axes.locator_params(nbins=5)
    axes.ticklabel_format(axis="y", scilimits=(-3, 5))
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.set_xlabel("epoch", loc="right", labelpad=2, color=INK)
    axes.tick_params(length=0, colors=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def _line(axes: Any, epochs: NDArray[np.float64], values: NDArray[np.float64], index: int) -> None:
    """A run's curve: smoothed over the raw one where there are many epochs, dots where a value is alone."""
    colour = list(RUN_COLOURS)[index % len(RUN_COLOURS)]
    dash = (0, DASHES[index % len(DASHES)] or None)
    known = ~np.isnan(np.pad(values, 1, constant_values=np.nan))
    alone = known[1:-1] & ~known[:-2] & ~known[2:]
    axes.plot(epochs[alone], values[alone], ".", color=colour)
    if len(values) >= SMOOTHED_FROM:
        axes.plot(epochs, values, color=colour, linewidth=0.8, alpha=0.3)
        values = smooth(values, len(values) // 20 * 2 + 1)
    axes.plot(epochs, values, color=colour, linewidth=1.6, linestyle=dash)


def _inside(svg: str) -> str:
    """What stands between the root's tags, with CSS colours and without ids that nothing refers to."""
    svg = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    for stand_in, colour in CSS_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return re.sub(r'<g id="[^"]*"', "<g", svg)


# Composing the page


def _page(title: str, runs: Sequence[Run]) -> str:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page.filters |= {"number": number, "plain": plain, "visible": visible}
    page.globals |= {"ends": ends, "extremes": _extremes, "nan": math.nan, "sum": np.nansum, "zip": zip}
    curves = {name: _draw(name, runs) for name in _curve_names(runs)}
    smoothed = any(len(run.metrics.get("epoch", ())) >= SMOOTHED_FROM for run in runs)
    look = {"picture": [72 * inches for inches in PICTURE], "dashes": DASHES, "smoothed": smoothed}
    return page.get_template("report.html.j2").render(title=title, runs=runs, curves=curves, **look).lstrip()


def _extremes(run: Run) -> tuple[list[Answer], list[Answer]]:
    """The best and the worst answers, of the evaluation or else of the last epoch's samples."""
    pool = run.after.answers if run.after else run.samples[max(run.samples)] if run.samples else []
    ranked = sorted((a for a in pool if not math.isnan(a.reward)), key=lambda a: -a.reward)
    count = min(EXTREMES, len(ranked) // 2)
    return ranked[:count], ranked[::-1][:count]


def number(value: float) -> str:
    """A number for people, of about three digits; a dash for NaN.

    >>> [number(x) for x in (0.12345, -2.0, 1234.5, 0.000012, float("nan"))]
    ['0.123', '−2', '1,234', '1.2e−05', '–']
    """
    if math.isnan(value):
        return "\N{EN DASH}"
    large = 999.5 <= abs(value) < 1e6
    return (f"{value:,.0f}" if large else f"{value:.3g}").translate({ord("-"): "\N{MINUS SIGN}"})


def visible(text: str) -> Markup:
    """Escaped text, its unseen characters spelled out and marked.

    >>> visible("<b>\u200b")
    Markup('&lt;b&gt;<span class="unseen">U+200B</span>')
    """
    pieces = UNSEEN.split(text)  # text and unseen characters in turn
    mark = Markup('<span class="unseen">{}</span>')
    return Markup("").join(mark.format(plain(p)) if i % 2 else p for i, p in enumerate(pieces))
