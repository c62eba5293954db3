"""`feedtune train` and `feedtune resume`: what they leave behind, on one process and on two."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import feedtune as package
from feedtune.config.compose import compose_config
from small_runs import fingerprint, overrides, run, write_rows


@pytest.fixture
def tiny(rows: Path) -> list[str]:
    return overrides(Path("rows.jsonl"), "lstm", "ppo", "report=false", "hydra.run.dir=run")


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_what_the_readme_says(rows: Path, feedtune: Any) -> None:
    said = feedtune("train", *overrides(Path("rows.jsonl"), "lstm", "ppo", "hydra.run.dir=run"))
    assert said.code == 0
    folder = rows.parent / "run"
    names = {".hydra", "checkpoints", "export", "metrics.csv", "samples.jsonl", "report.html"}
    assert names <= {path.name for path in folder.iterdir()}
    saved = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
    assert "task.path=rows.jsonl" in saved
    assert said.out.startswith("rollout/reward ")
    assert f"report: {folder / 'report.html'}" in said.out
    assert f"feedtune evaluate {folder}" in said.out


def test_the_default_folder_is_named_by_the_clock(tiny: list[str], rows: Path, feedtune: Any) -> None:
    assert feedtune("train", *tiny[:-1]).code == 0
    [folder] = (rows.parent / "runs").glob("????-??-??/??-??-??")
    assert (folder / "export" / "feedtune.json").is_file()


def test_in_python_and_on_the_command_line_the_same(tiny: list[str], rows: Path, feedtune: Any) -> None:
    assert feedtune("train", *tiny).code == 0
    run(rows.parent / "python", tiny[:-1])
    assert fingerprint(rows.parent / "run") == fingerprint(rows.parent / "python")


def test_a_rehearsal_leaves_no_run(tiny: list[str], rows: Path, feedtune: Any) -> None:
    assert feedtune("train", *tiny, "debug=fast").code == 0
    left = {path.name for path in (rows.parent / "run").iterdir()}
    assert left == {".hydra"}  # and no empty log of Hydra's
    assert feedtune("train", *tiny).code == 0  # the folder is free


def test_flags_of_hydra_may_stand_anywhere(tiny: list[str], feedtune: Any) -> None:
    said = feedtune("train", "seed=3", "--cfg", "job", *tiny)
    assert said.code == 0
    printed = yaml.safe_load(said.out)
    assert (printed["seed"], printed["task"]["path"]) == (3, "rows.jsonl")
    assert "metrics.csv" not in said.out


def test_the_command_line_is_put_back(
    tiny: list[str], monkeypatch: pytest.MonkeyPatch, feedtune: Any
) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest", "here"])
    feedtune("train", *tiny, "optimizer.lr=abc")
    assert sys.argv == ["pytest", "here"]


def test_an_error_of_ours_says_where_its_traceback_is(
    tiny: list[str], rows: Path, monkeypatch: pytest.MonkeyPatch, feedtune: Any
) -> None:
    """Nobody reads a traceback in the terminal, and nobody can mend a mistake of feedtune's without one."""

    def broken(*given: object, **named: object) -> dict[str, float]:
        raise ValueError("a mistake of ours")

    monkeypatch.setattr("feedtune.runs.training.train", broken)
    monkeypatch.setattr("tempfile.tempdir", str(rows.parent))
    said = feedtune("train", *tiny)
    assert said.code == 1
    [file] = rows.parent.glob("feedtune-error-*.txt")
    assert said.err == f"feedtune: ValueError: a mistake of ours\nthe traceback is in {file}\n"
    assert 'raise ValueError("a mistake of ours")' in file.read_text()


# What `init_from` brings stands in the run's config


def test_the_config_of_a_run_says_which_backbone_it_has(tiny: list[str], rows: Path, feedtune: Any) -> None:
    assert feedtune("train", *tiny, "hydra.run.dir=first").code == 0
    second = [one for one in tiny if not one.startswith(("backbone", "tokenizer"))]
    said = feedtune("train", *second, "init_from=first", "hydra.run.dir=second")
    assert said.code == 0, said.err
    saved = yaml.safe_load((rows.parent / "second" / ".hydra" / "config.yaml").read_text())
    assert saved["backbone"]["_target_"].endswith(".Recurrent")
    assert (saved["backbone"]["cell"], saved["backbone"]["hidden_size"]) == ("lstm", 16)
    assert feedtune("resume", "second").code == 0
    assert feedtune("evaluate", "second", "evaluation.rows=2").code == 0


@pytest.mark.parametrize(
    ("typed", "begins"),
    [
        ("backbone=transformer", "backbone=transformer: feedtune_plugins."),  # the default, but typed
        ("backbone.hidden_size=32", "backbone.hidden_size=32: 32 is not 16. init_from=first brings its own"),
        ("backbone.heads=2", "backbone.heads=2: 2 is not anything that the run's backbone has."),
        ("backbone=gru", "backbone.cell (as of backbone=gru): gru is not lstm."),
    ],
)
def test_a_backbone_that_was_typed_is_not_ignored(
    typed: str, begins: str, tiny: list[str], lstm_run: Path, rows: Path, feedtune: Any
) -> None:
    second = [one for one in tiny if not one.startswith(("backbone", "tokenizer"))]
    (rows.parent / "first").symlink_to(lstm_run)
    said = feedtune("train", *second, "init_from=first", typed)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert said.err.startswith(f"feedtune: {begins}")


def test_a_value_that_the_backbone_has_anyway_may_be_typed(
    tiny: list[str], lstm_run: Path, feedtune: Any
) -> None:
    second = [one for one in tiny if not one.startswith(("backbone", "tokenizer"))]
    said = feedtune("train", *second, f"init_from={lstm_run}", "backbone.hidden_size=16")
    assert said.code == 0, said.err


# Algorithms that ask for no reward bring none


@pytest.mark.parametrize("algorithm", ["sft", "dpo", "reward_model"])
def test_an_algorithm_without_reward_brings_none(algorithm: str) -> None:
    assert compose_config([f"algorithm={algorithm}"]).reward == {}
    chosen = compose_config([f"algorithm={algorithm}", "reward=length"]).reward
    assert chosen._target_.endswith(".Length")


def test_without_the_extra_of_the_default_reward_sft_trains(
    rows: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vaderSentiment", None)
    chosen = [one for one in overrides(rows, "lstm", "sft") if not one.startswith("reward")]
    said = feedtune("train", *chosen, "report=false", "hydra.run.dir=run", "evaluation.every=1")
    assert said.code == 0, said.err
    assert "eval/reward" not in metrics(rows.parent / "run")[0]
    assert "eval/perplexity" in metrics(rows.parent / "run")[0]
    assert feedtune("evaluate", "run").code == 0
    said = feedtune("evaluate", "run", "reward=length")
    assert said.code == 0, said.err
    assert "eval/reward" in said.out
    said = feedtune("train", *chosen, "report=false", "hydra.run.dir=other", "reward.target=3")
    assert said.err.startswith("feedtune: reward.target: the run has no 'reward'; choose one of answer, ")


# resume


@pytest.fixture
def finished(lstm_run: Path, tmp_path: Path) -> Path:
    """A run of two epochs that may be written into."""
    shutil.copytree(lstm_run, tmp_path / "run")
    return tmp_path / "run"


def test_resume_goes_on_to_the_last_epoch(finished: Path, tmp_path: Path, feedtune: Any) -> None:
    assert feedtune("resume", str(finished)).out.startswith("the run was complete already\n")
    file = finished / ".hydra" / "config.yaml"
    file.write_text(file.read_text().replace("max_epochs: 2", "max_epochs: 3"))
    said = feedtune("resume", str(finished))
    assert said.code == 0
    assert said.out.startswith("rollout/reward ")
    assert [row["epoch"] for row in metrics(finished)] == ["0", "1", "2"]
    data = yaml.safe_load(file.read_text())["task"]["path"]
    run(tmp_path / "long", overrides(Path(data), "lstm", "ppo", "trainer.max_epochs=3"))
    assert fingerprint(finished) == fingerprint(tmp_path / "long")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: shutil.rmtree(run), "there is no such folder"),
        (lambda run: shutil.rmtree(run / ".hydra"), "it has no .hydra/config.yaml"),
        (lambda run: shutil.rmtree(run / "checkpoints"), "the run wrote no checkpoint, so start it again"),
    ],
)
def test_what_cannot_be_resumed(damage: Any, words: str, finished: Path, feedtune: Any) -> None:
    damage(finished)
    said = feedtune("resume", str(finished))
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert words in said.err


# two processes

TWO_PROCESSES = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
WRAPPER = """
import os, sys
from feedtune.cli import main
code = main(sys.argv[1:])
open(f"exit_code_{os.environ.get('LOCAL_RANK', '0')}", "w").write(str(code))
sys.exit(code)
"""


@pytest.mark.parametrize(
    "algorithm",
    ["sft", pytest.param("ppo", marks=pytest.mark.slow), pytest.param("dqn", marks=pytest.mark.slow)],
)
def test_two_processes_train_together(algorithm: str, tmp_path: Path) -> None:
    """Both end well; one writes; and for sft the weights are those of one process that accumulates."""
    rows = [{"prompt": f"{a}+{b}=", "reference": str(a + b)} for a in range(6) for b in range(6)]
    data = write_rows(tmp_path, rows)  # 32 rows to train on, which 2 x 4 divides
    chosen = overrides(data, "gru", algorithm, "task.eval_fraction=0.1", "optimizer.lr=0.01", "report=false")
    chosen += ["collector.rows=4"] if algorithm == "sft" else []
    (tmp_path / "wrapper.py").write_text(WRAPPER)
    done = subprocess.run(
        [sys.executable, "wrapper.py", "train", *chosen, *TWO_PROCESSES, "hydra.run.dir=two"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"exit_code_{rank}").read_text() for rank in (0, 1)] == ["0", "0"]
    assert done.stdout.count("run folder: ") == 1
    assert [row["epoch"] for row in metrics(tmp_path / "two")] == ["0", "1"]
    if algorithm == "dqn":  # whose language-model head has no gradient
        return
    if algorithm == "ppo":
        # 8 responses over both ranks; the first epoch's policy is its reference, wherever it ran.
        assert float(metrics(tmp_path / "two")[0]["policy/kl"]) == pytest.approx(0.0, abs=1e-6)
        return
    run(tmp_path / "one", [*chosen, "trainer.accumulate_grad_batches=2"])
    one, two = package.load(tmp_path / "one").policy, package.load(tmp_path / "two").policy
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], weight, atol=1e-5, rtol=0)
    [alone, together] = (
        [float(row["rollout/length"]) for row in metrics(tmp_path / n)] for n in ("one", "two")
    )
    assert together == pytest.approx(alone)
