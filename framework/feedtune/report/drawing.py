"""Curves: one picture for each metric, of every run by epoch, as SVG that takes its colours from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from feedtune.errors import missing_extra
from feedtune.report.reading import Run

# matplotlib takes hex colours only: these stand for CSS variables while it draws, so that one picture
# serves light, dark and print. Run i has colour i mod 5 and dash i mod 4: 20 runs can be told apart.
# None is black, which matplotlib leaves unsaid as what SVG fills with anyway.
RUN_COLOURS = {f"#0{i + 1}0000": f"var(--run-{i})" for i in range(5)}
INK, GRID = "#060000", "#070000"
CSS_COLOURS = {**RUN_COLOURS, INK: "currentColor", GRID: "var(--grid)"}
DASHES = ((), (6, 2), (2, 2), (8, 2, 2, 2))
PICTURE = (4.2, 2.2)  # inches of 72 SVG units
SMOOTHED_FROM = 40  # epochs; shorter curves are shown as they are

# A metric belongs to the first group that has its name, or a folder (with a slash) that it is in.
GROUPS = {
    "Reward": ("rollout/reward", "eval/reward", "rollout/baseline", "rollout/greedy"),
    "Reward by source": ("rollout/reward/",),
    "KL": ("policy/kl", "policy/kl_coefficient"),
    "Length and responses": ("rollout/length", "rollout/"),
    "Loss": ("loss/",),
    "Policy": ("policy/",),
    "Held-out prompts": ("eval/",),
    "Speed": ("perf/", "progress/"),
}
OTHER = "Other"


def grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Metrics by the group that they are shown in, in the groups' order.

    >>> grouped(["mine", "rollout/ended", "rollout/reward/tone", "rollout/length"])["Length and responses"]
    ['rollout/length', 'rollout/ended']
    """
    found: dict[str, list[tuple[int, str]]] = {group: [] for group in (*GROUPS, OTHER)}
    for name in names:
        group, place = _place(name)
        found[group].append((place, name))
    return {group: [name for _, name in sorted(those)] for group, those in found.items() if those}


def _place(name: str) -> tuple[str, int]:
    """The metric's group, and its place in it."""
    for group, own in GROUPS.items():
        for index, begin in enumerate(own):
            if name == begin or (begin.endswith("/") and name.startswith(begin)):
                return group, index
    return OTHER, 0


def curves(runs: Sequence[Run]) -> dict[str, dict[str, Markup]]:
    """The pictures of all metrics that have a value in some run, by group and metric.

    Raises:
        UserError: there is something to draw, and matplotlib, the extra `report`, is not installed.
    """
    found = {name for run in runs for name, values in run.metrics.items() if not np.isnan(values).all()}
    groups = grouped(found - {"epoch"})
    return {group: {name: _draw(name, runs) for name in names} for group, names in groups.items()}


def smoothed(runs: Sequence[Run]) -> bool:
    """Whether some run's curves are smoothed."""
    return any(len(run.metrics.get("epoch", ())) >= SMOOTHED_FROM for run in runs)


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

    def fill(axes: Any) -> None:
        _style(axes)
        for index, run in enumerate(runs):
            if metric in run.metrics:
                _line(axes, run.metrics["epoch"], run.metrics[metric], index)

    return drawn(metric, PICTURE, (0.13, 0.2, 0.85, 0.74), fill)


def drawn(
    name: str,
    size: tuple[float, float],
    place: tuple[float, float, float, float],
    fill: Callable[[Any], None],
) -> Markup:
    """A picture as the inside of an SVG element.

    Args:
        name: of the picture; the same name and the same strokes give the same bytes.
        size: of the picture, in inches.
        place: of its axes: left, bottom, width and height, in shares of the picture.
        fill: draws on these axes.

    Raises:
        UserError: matplotlib, the extra `report`, is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure  # no pyplot: it keeps figures and picks a backend for all
    except ImportError as error:
        raise missing_extra("matplotlib", "report", "feedtune report") from error
    style = {"svg.fonttype": "none", "svg.hashsalt": f"feedtune {name}", "font.size": 8}
    with matplotlib.rc_context():  # the page depends on no matplotlibrc, and leaves no trace
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=size)
        fill(figure.add_axes(place))
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return Markup(_inside(file.getvalue()))


def _style(axes: Any) -> None:
    axes.locator_params(nbins=5)
    axes.ticklabel_format(axis="y", scilimits=(-3, 5))
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.set_xlabel("epoch", loc="right", labelpad=2, color=INK)
    frame(axes)


def frame(axes: Any) -> None:
    """Quiet axes: a line below, faint ones at the ticks of y."""
    axes.tick_params(length=0, colors=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def colour_of(index: int) -> str:
    """What stands for the colour of the run with this number."""
    return list(RUN_COLOURS)[index % len(RUN_COLOURS)]


def _line(axes: Any, epochs: NDArray[np.float64], values: NDArray[np.float64], index: int) -> None:
    """A run's curve: smoothed over the raw one where there are many epochs, dots where a value is alone."""
    colour = colour_of(index)
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
