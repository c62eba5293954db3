"""The curves of the report: a picture for each metric, with its numbers in words."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from feedtune.report.drawing import grouped, smooth
from report_pages import MINUS, line_paths, make_run, report_of


def test_each_metric_has_a_picture_with_its_numbers_in_words(full_run: Path) -> None:
    page = report_of(full_run)
    pictures = [attrs for tag, attrs in page.elements if tag == "svg" and attrs.get("role") == "img"]
    assert [attrs["aria-label"] for attrs in pictures] == [
        "Reward: from 0.25 to 0.75",
        "Reward: sentiment: from 0.5 to 0.5",
        "KL to the reference: from 0 to 9.25",
        "Epoch: from 30 to 30",
        "mine/own: from 7 to 9",
    ]
    hidden = [attrs for tag, attrs in page.elements if tag == "svg" and attrs.get("role") != "img"]
    assert all(attrs["aria-hidden"] == "true" for attrs in hidden)


def test_curves_are_grouped(full_run: Path) -> None:
    names = "perf/epoch_seconds policy/entropy rollout/ended rollout/reward/tone loss/q eval/reward policy/kl"
    names += " eval/bleu rollout/reward rollout/length mine rollout/reward/length policy/klaxon"
    groups = {
        "Reward": ["rollout/reward", "eval/reward"],
        "Reward by source": ["rollout/reward/length", "rollout/reward/tone"],
        "KL": ["policy/kl"],
        "Length and responses": ["rollout/length", "rollout/ended"],
        "Loss": ["loss/q"],
        "Policy": ["policy/entropy", "policy/klaxon"],
        "Held-out prompts": ["eval/bleu"],
        "Speed": ["perf/epoch_seconds"],
        "Other": ["mine"],
    }
    found = grouped(names.split())
    assert found == groups
    assert list(found) == list(groups)
    page = report_of(full_run).source
    assert re.findall(r"<h3>(.*?)</h3>\s*<div class=\"curves\">", page) == [
        "Reward",
        "Reward by source",
        "KL",
        "Speed",
        "Other",
    ]


def test_a_metric_without_any_value_has_no_picture(tmp_path: Path) -> None:
    page = report_of(make_run(tmp_path / "run", metrics="epoch,a,b\n0,1,\n1,2,nan\n"))
    assert [label[0] for label in page.attributes("aria-label", "svg") if label] == ["a"]


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "inf", "-inf", "1e300"])
def test_cells_without_a_number_are_gaps(tmp_path: Path, cell: str) -> None:
    values = ["1", "2", cell, "3", "4", cell, "5"]
    rows = "".join(f"{epoch},{value}\n" for epoch, value in enumerate(values))
    page = report_of(make_run(tmp_path / "run", metrics="epoch,a\n" + rows))
    (line,) = line_paths(page)
    # Two strokes of two epochs each; the last epoch stands alone and is a dot.
    strokes = re.findall(r"M [^M]*L [^M]*", line["d"] or "")
    assert len(strokes) == 2
    dots = [
        attrs
        for tag, attrs in page.elements
        if tag == "use" and "fill: var(--run-0)" in (attrs["style"] or "")
    ]
    assert len(dots) == 1


@pytest.mark.parametrize(("epochs", "lines"), [(39, 1), (40, 2)])
def test_many_epochs_are_smoothed_over_the_faint_raw_curve(tmp_path: Path, epochs: int, lines: int) -> None:
    rows = "".join(f"{epoch},{epoch % 2}\n" for epoch in range(epochs))
    page = report_of(make_run(tmp_path / "run", metrics="epoch,a\n" + rows))
    found = [attrs["style"] or "" for attrs in line_paths(page)]
    assert len(found) == lines
    assert ["stroke-opacity" in style for style in found] == [True, False][2 - lines :]
    assert ("moving average" in page.text) == (lines == 2)


def test_smoothing_by_hand() -> None:
    # (2+4)/2, (2+4+9)/3, (4+9)/2 beside the gap, the gap, (8+6)/2 beside the gap, (8+6)/2 at the end
    values = np.array([2.0, 4.0, 9.0, np.nan, 8.0, 6.0])
    np.testing.assert_allclose(smooth(values, 3), [3.0, 5.0, 6.5, np.nan, 7.0, 7.0])


def test_numbers_as_large_as_floats_go(tmp_path: Path) -> None:
    rows = "epoch,a,b\n0,3.4e38,1e-300\n1,-3.4e38,-1e99\n"
    assert f"3.4e+38 → {MINUS}3.4e+38" in report_of(make_run(tmp_path / "run", metrics=rows)).text
