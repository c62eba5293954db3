"""docs/tracking.md names every metric: those in the code, and those of small runs of many kinds."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from feedtune.config.discovery import own_conf
from feedtune.tracking.wandb_run import AXES
from small_runs import overrides, rows_for, run, write_rows
from wandb_files import metrics_of

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "tracking.md"
LINE = re.compile(r"^\| (`.+`) \| .+ \| (rollouts|updates|tokens) \|$", re.MULTILINE)
NAME = re.compile(r"(rollout|loss|policy|eval|perf|progress|skipped)/[a-zA-Z_0-9]+")
HERE = [ROOT / "framework" / "feedtune", ROOT / "plugins" / "feedtune_plugins"]

TABLE = {
    name.replace("<source>", "*").replace("<name>", "*").replace("<part>", "*"): axis
    for names, axis in LINE.findall(PAGE.read_text())
    for name in re.findall(r"`([^`]+)`", names)
}
"""The axis of each metric, by its name or a pattern."""


def unknown(names: set[str]) -> set[str]:
    return {name for name in names if not any(fnmatchcase(name, known) for known in TABLE)}


def test_the_table_is_read() -> None:
    assert len(TABLE) > 60
    assert TABLE["rollout/reward/*"] == "rollouts"
    assert unknown({"rollout/reward", "rollout/reward/length", "rollout/regard"}) == {"rollout/regard"}


def test_every_name_in_the_code_is_explained() -> None:
    trees = [ast.parse(path.read_text()) for folder in HERE for path in folder.rglob("*.py")]
    nodes = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    found = {text for text in nodes if isinstance(text, str) and NAME.fullmatch(text)}
    assert len(found) > 45
    assert unknown(found) == set()


def test_the_axes_are_those_that_wandb_is_told() -> None:
    for name, axis in TABLE.items():
        [told] = [counter for pattern, counter in AXES.items() if fnmatchcase(name, pattern)] or [name]
        assert told == f"progress/{axis}", name


def test_the_keys_are_those_of_the_option() -> None:
    option = yaml.safe_load((own_conf() / "logger" / "wandb.yaml").read_text())
    section = PAGE.read_text().partition("| key | what it does |")[2].partition("What W&B gets")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == set(option) - {
        "_target_",
        "folder",
    }


EVALUATED = ("evaluation.every=1", "evaluation.rows=4")

KINDS: dict[str, tuple[str, ...]] = {
    "ppo": ("profile=true", "on_nonfinite=skip", "callbacks=default", *EVALUATED),
    "reinforce": (
        *("algorithm.advantage.baseline=running", "reward@monitor.reward=length", *EVALUATED),
        *("reward_calls.attempts=2", "reward_calls.on_failure=missing"),
    ),
    "grpo": ("algorithm.scaling={_target_: feedtune_plugins.algorithms.RunningScale, clip: 2.0}",),
    "remax": ("reward=judge", "judge@reward.judge=simulated", *EVALUATED),
    "best_of_n": (),
    "q_learning": (),
    "cql": (),
    "ilql": (),
    "dpo": EVALUATED,
    "reward_model": (),
    "online_dpo": (),
    "sft": (),
}
"""Algorithms, and what brings further metrics."""


@pytest.mark.parametrize("algorithm", KINDS)
def test_every_metric_of_a_run_is_explained(algorithm: str, tmp_path: Path) -> None:
    data = write_rows(tmp_path, rows_for(algorithm))
    options = (*KINDS[algorithm], "trainer.max_epochs=1", "trainer.enable_checkpointing=false")
    run(tmp_path / "run", overrides(data, "lstm", algorithm, *options))
    [row] = metrics_of(tmp_path / "run")
    assert len(row) > 9
    assert unknown(set(row) - {"epoch"}) == set()


def test_every_metric_of_episodes_is_explained(tmp_path: Path) -> None:
    options = ["collector=gymnasium", "task=gymnasium", "collector.episodes=8", "collector.max_turns=4"]
    chosen = overrides(write_rows(tmp_path), "lstm", "reinforce", "trainer.max_epochs=1")
    kept = [one for one in chosen if not one.startswith(("task", "collector."))]
    run(tmp_path / "run", [*kept, *options, *EVALUATED])
    [row] = metrics_of(tmp_path / "run")
    assert {"rollout/turns", "eval/turns", "rollout/truncated"} <= set(row)
    assert unknown(set(row) - {"epoch"}) == set()
