"""What a run is said to be: choices, values, versions, code, and no secret."""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path

import pytest

from feedtune.config.compose import compose_config
from feedtune.tracking.facts import choices, code_version, run_facts
from feedtune.tracking.telling import sample_table, samples_by_epoch
from wandb_files import CANARY, repository

HYDRA = """\
hydra:
  runtime:
    choices:
      {algorithm: ppo, local: default, backbone: lstm, tokenizer: char, experiment: null, hydra/x: basic}
"""


def written(folder: Path, text: str) -> Path:
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "hydra.yaml").write_text(text)
    return folder


def test_the_options_that_were_chosen(tmp_path: Path) -> None:
    assert choices(written(tmp_path, HYDRA)) == {"algorithm": "ppo", "backbone": "lstm", "tokenizer": "char"}


@pytest.mark.parametrize("text", ["hydra: 3", "- a", "hydra: {runtime: {choices: [a]}}", "{", "", "a: ${b"])
def test_what_cannot_be_read_is_not_said(text: str, tmp_path: Path) -> None:
    assert choices(tmp_path) == {}  # not even a file
    assert choices(written(tmp_path, text)) == {}


def test_what_init_from_brings_was_not_chosen(tmp_path: Path) -> None:
    """The options backbone and tokenizer are then the defaults of a config that something else took over."""
    config = compose_config(["run_dir=x", "init_from=runs/earlier"])
    facts = run_facts(config, written(tmp_path, HYDRA))
    assert facts["algorithm"] == "ppo"
    assert "backbone" not in facts
    assert "tokenizer" not in facts
    assert facts["values"]["init_from"] == "runs/earlier"


def test_texts_lose_their_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a config is refused before; whoever tells loggers of another is safe all the same."""
    monkeypatch.setenv("JUDGE_API_KEY", CANARY)
    facts = run_facts(compose_config(["run_dir=x", f"trust=[a.{CANARY}]"]), tmp_path)
    assert facts["values"]["trust"] == ["a.<JUDGE_API_KEY>"]
    assert facts["values"]["seed"] == 0
    assert facts["versions"]["feedtune"] == version("feedtune")


def test_the_commit_and_whether_it_is_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = compose_config(["run_dir=x"])
    assert code_version() == (None, None)
    assert "code" not in run_facts(config, tmp_path)
    (tmp_path / "mine.py").write_text("x = 1\n")
    commit = repository(tmp_path, "git@example.org:me/mine.git")
    assert code_version() == (commit, "git@example.org:me/mine.git")
    assert run_facts(config, tmp_path)["code"] == {"commit": commit, "changed": False}
    (tmp_path / "mine.py").write_text("x = 2\n")
    assert run_facts(config, tmp_path)["code"] == {"commit": commit, "changed": True}
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_DISABLE_GIT", "true")
        assert code_version() == (None, None)
    monkeypatch.setenv("PATH", "")  # no git
    assert code_version() == (None, None)


def test_a_table_has_a_cell_for_everything() -> None:
    records = [
        {"prompt": "a", "response": "b", "reward": math.nan, "reward/one": 1, "messages": []},
        {"prompt": "c", "response": f"Bearer {CANARY}", "reward": 2.5, "reward/two": None, "kl_total": -0.5},
    ]
    columns, rows = sample_table(4, records)
    assert columns == ["epoch", "prompt", "response", "reward", "reward/one", "reward/two", "kl", "length"]
    assert rows == [
        [4, "a", "b", None, 1.0, None, None, None],
        [4, "c", "***", 2.5, None, None, -0.5, None],
    ]


def test_samples_are_read_as_far_as_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    assert samples_by_epoch(path) == {}
    whole = ['{"epoch": 0, "a": 1}', '{"epoch": 1, "a": 2}', '{"epoch": 0, "a": 3}']
    path.write_text("\n".join([whole[0], "[]", '{"epoch": "x"}', *whole[1:], '{"ep']))
    one, two, three = map(json.loads, whole)
    assert samples_by_epoch(path) == {0: [one, three], 1: [two]}
