"""The keys in which configurations differ, beside one another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from feedtune.errors import UserError
from feedtune.report.configs import settings
from report_pages import Page, make_run, report_of

METRICS = "epoch\n0\n"


def runs_of(folder: Path, *configs: str | None) -> list[Path]:
    return [make_run(folder / f"run{i}", metrics=METRICS, config=c) for i, c in enumerate(configs)]


def table_of(page: Page) -> list[list[str]]:
    """The rows of the table of differing keys, cell by cell."""
    found = re.search(r'<table class="settings">.*?</table>', page.source, re.DOTALL)
    assert found is not None
    rows = re.findall(r"<tr>(.*?)</tr>", found[0], re.DOTALL)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"<[^>]*>", "", cell).strip() for cell in row] for row in cells]


def test_keys_that_differ_and_no_others(tmp_path: Path) -> None:
    page = report_of(
        *runs_of(
            tmp_path,
            "seed: 1\nsame: 5\noptimizer: {lr: 0.001, name: adam}\nlayers: [1, 2]\n",
            "seed: 2\nsame: 5\noptimizer: {lr: 0.01, name: adam, decay: null}\nlayers: [1, 3]\n",
        )
    )
    assert table_of(page) == [
        ["Key", "run0", "run1"],
        ["layers", "[1, 2]", "[1, 3]"],
        ["optimizer.decay", "no such key", "null"],
        ["optimizer.lr", "0.001", "0.01"],
        ["seed", "1", "2"],
    ]
    assert "4 of 6 keys differ." in page.text  # these, same and optimizer.name


def test_choices_come_first_and_loggers_last(tmp_path: Path) -> None:
    texts = [
        f"logger: {{id: {n}}}\nbackbone: {{_target_: kind{n}, hidden: {n}}}\nseed: {n}\n" for n in (1, 2)
    ]
    found = [row[0] for row in table_of(report_of(*runs_of(tmp_path, *texts)))]
    assert found == ["Key", "backbone._target_", "backbone.hidden", "seed", "logger.id"]


def test_a_text_is_told_from_what_it_looks_like(tmp_path: Path) -> None:
    page = report_of(
        *runs_of(tmp_path, "a: '1'\nb: 'null'\nc: ''\nd: {}\n", "a: 1\nb: null\nc: x\nd: {e: 1}")
    )
    assert table_of(page)[1:] == [
        ["a", "&#34;1&#34;", "1"],
        ["b", "&#34;null&#34;", "null"],
        ["c", "&#34;&#34;", "x"],
        ["d", "{}", "no such key"],
        ["d.e", "no such key", "1"],
    ]


def test_three_runs_of_which_one_has_no_configuration(tmp_path: Path) -> None:
    page = report_of(*runs_of(tmp_path, "seed: 1", None, "seed: 3"))
    assert table_of(page) == [["Key", "run0", "run2"], ["seed", "1", "3"]]
    # In the colour and dash that the run has everywhere: those of the first and of the third.
    assert re.findall(r'var\(--run-(\d)\)"', page.source.partition('"settings"')[2])[:2] == ["0", "2"]


def test_equal_configurations_and_single_runs(tmp_path: Path) -> None:
    equal = report_of(*runs_of(tmp_path, "a: 1\nb: 2", "b: 2\na: 1"))
    assert "None of 2 keys differs." in equal.text
    assert "<table" not in equal.source
    assert "keys differ" not in report_of(tmp_path / "run0").text


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("a: 1\nb: [", r"run1: .hydra/config.yaml, line 2: not valid YAML \(.*\)"),
        ("a\n", r"run1: .hydra/config.yaml: expected a mapping of keys to values, got 'a'"),
        ("a: &x [1]\nb: *x\n", r"run1: .hydra/config.yaml, line 2: not valid YAML \(an alias\)"),
        ("a: !!python/object:os.system {}\n", r"run1: .hydra/config.yaml, line 1: not valid YAML"),
        ("[" * 1000, r"run1: .hydra/config.yaml.*: not valid YAML"),
        ("a: 2026-13-45\n", r"run1: .hydra/config.yaml: not valid YAML"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, config: str, message: str) -> None:
    folders = runs_of(tmp_path, "a: 1", config)
    with pytest.raises(UserError, match=message) as caught:
        report_of(*folders)
    assert "\n" not in str(caught.value)


def test_references_stay_as_they_are_written() -> None:
    assert settings("a: ${seed}", "config.yaml") == {"a": "${seed}"}
