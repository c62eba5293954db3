"""The reliability of a reward model on the page: dots, intervals, words, and files that are wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from feedtune.errors import UserError
from feedtune.report.reliability import Bin, interval
from report_pages import Page, answer, make_run, report_of

BINS = [
    {"predicted": 0.525, "observed": 0.5, "pairs": 8},
    {"predicted": 0.75, "observed": 0.25, "pairs": 2},
    {"predicted": 0.97, "observed": 0.9, "pairs": 1},
]


def evaluated(**more: Any) -> dict[str, Any]:
    return {"metrics": {"eval/preference_accuracy": 0.5}, "records": [answer("hello", "hi")], **more}


def page_of(folder: Path, bins: Any) -> Page:
    return report_of(make_run(folder / "judge", evaluation=evaluated(reliability=bins)))


def test_the_curve_is_drawn_and_said_in_words(tmp_path: Path) -> None:
    page = page_of(tmp_path, BINS)
    assert "Reliability on held-out pairs" in page.text
    (label,) = page.attributes("aria-label", "svg")
    assert label == (
        "Reliability: sure of 52% of 8 pairs, right in 50%; sure of 75% of 2 pairs, right in 25%; "
        "sure of 97% of 1 pair, right in 90%"
    )


def test_dots_stand_where_the_numbers_say(tmp_path: Path) -> None:
    """Right of each other by their predictions, higher the more often right, larger the more pairs."""
    page = page_of(tmp_path, BINS)
    dots = [a for tag, a in page.elements if tag == "use" and "fill: var(--run-0)" in (a["style"] or "")]
    x, y = ([float(dot[name] or "") for dot in dots] for name in ("x", "y"))
    # The axis of x is linear: .525, .75 and .97 lie as far apart on the page as they do in truth.
    assert (x[1] - x[0]) / (x[2] - x[0]) == pytest.approx((0.75 - 0.525) / (0.97 - 0.525), abs=1e-4)
    assert (y[1] - y[0]) / (y[2] - y[0]) == pytest.approx((0.25 - 0.5) / (0.9 - 0.5), abs=1e-4)
    assert y[2] < y[0] < y[1]  # SVG counts downwards
    assert len({dot["xlink:href"] for dot in dots}) == 3  # three sizes


def test_several_runs_have_a_curve_each_in_their_colours(tmp_path: Path) -> None:
    folders = [
        make_run(tmp_path / name, evaluation=evaluated(reliability=BINS[:1])) for name in ("one", "other")
    ]
    source = report_of(*folders).source
    first, second = re.findall(r'<figure class="reliability">(.*?)</figure>', source, re.DOTALL)
    assert "var(--run-0)" in first
    assert "var(--run-1)" not in first
    assert "var(--run-1)" in second


@pytest.mark.parametrize("evaluation", [evaluated(), evaluated(reliability=[]), evaluated(reliability=None)])
def test_without_pairs_there_is_no_picture(tmp_path: Path, evaluation: Any) -> None:
    assert "Reliability" not in report_of(make_run(tmp_path / "run", evaluation=evaluation)).text


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        ("high", "reliability: expected a list of bins, got 'high'"),
        (
            [3],
            r"reliability\[0\]: expected 'predicted' and 'observed' from 0 to 1 and 'pairs' above 0, got '3'",
        ),
        ([*BINS, {**BINS[0], "predicted": 1.5}], r"reliability\[3\]: expected"),
        ([{**BINS[0], "pairs": 0}], r"reliability\[0\]"),
        ([{**BINS[0], "observed": None}], r"reliability\[0\]"),
        ([{**BINS[0], "observed": float("nan")}], r"reliability\[0\]"),
        ([{**BINS[0], "pairs": float("inf")}], r"reliability\[0\]"),
        ([{**BINS[0], "pairs": 10**400}], r"reliability\[0\]"),
        ([{"predicted": 0.5, "observed": 0.5}], r"reliability\[0\]"),
        ([{"predicted": "<script>", "observed": 1, "pairs": 1}], r"reliability\[0\]"),
    ],
)
def test_bins_that_are_none_are_refused_by_place(tmp_path: Path, bins: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"evaluation.json: {message}"):
        page_of(tmp_path, bins)


@pytest.mark.parametrize(("right", "pairs"), [(0, 5), (3, 4), (50, 100), (7, 7), (1, 1)])
def test_the_interval_is_wilsons(right: int, pairs: int) -> None:
    expected = binomtest(right, pairs).proportion_ci(0.95, "wilson")
    found = interval(Bin(predicted=0.5, observed=right / pairs, pairs=pairs))
    assert found == pytest.approx((expected.low, expected.high), abs=1e-4)  # 1.96 is rounded
