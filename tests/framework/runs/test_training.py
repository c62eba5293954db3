"""Every backbone with every algorithm trains, leaves a whole run folder, and comes back."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import feedtune
from feedtune.checkpoints import listed
from feedtune.config.discovery import own_conf
from feedtune.experience import from_rows
from feedtune.scoring import score_actions
from small_runs import SMALL, newest_state, overrides, rows_for, run, write_rows

ALGORITHMS = sorted(file.stem for file in (own_conf() / "algorithm").glob("*.yaml"))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("backbone", SMALL)
def test_every_backbone_trains_with_every_algorithm(tmp_path: Path, backbone: str, algorithm: str) -> None:
    data = write_rows(tmp_path, rows_for(algorithm))
    folder = tmp_path / "run"
    run(folder, overrides(data, backbone, algorithm))

    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert [path.name for path in listed(folder)] != []
    assert (folder / "samples.jsonl").is_file() == ("rollout/ended" in rows[0])  # wherever it spoke
    loaded = feedtune.load(folder)
    trained = torch.load(newest_state(folder), weights_only=True)["state_dict"]
    for name, value in loaded.policy.state_dict().items():
        assert torch.equal(value, trained[f"policy.{name}"]), name


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_moves_the_weights(tmp_path: Path, algorithm: str) -> None:
    data = write_rows(tmp_path, rows_for(algorithm))
    run(tmp_path / "still", overrides(data, "lstm", algorithm, "optimizer.lr=0.0"))
    run(tmp_path / "moving", overrides(data, "lstm", algorithm, "optimizer.lr=0.01"))
    still, moving = feedtune.load(tmp_path / "still"), feedtune.load(tmp_path / "moving")
    pairs = zip(still.policy.parameters(), moving.policy.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_transformer_export_is_an_ordinary_transformers_folder(tmp_path: Path) -> None:
    run(tmp_path / "run", overrides(write_rows(tmp_path), "transformer", "ppo"))
    loaded = feedtune.load(tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "export").eval()
    tokens = list(loaded.codec.prompt({"prompt": "1+2="}).tokens)
    exp = from_rows([[*tokens, 5, 6]], [[False] * len(tokens) + [True, True]])
    ours = score_actions(loaded.policy, exp).logp[exp.action]
    with torch.no_grad():
        logits = model(exp.tokens).logits.log_softmax(-1)[0, len(tokens) - 1 : -1]
    theirs = logits.gather(-1, torch.tensor([[5], [6]])).squeeze(-1)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_value_head_comes_back(tmp_path: Path) -> None:
    run(tmp_path / "run", overrides(write_rows(tmp_path), "lstm", "ppo", "optimizer.lr=0.01"))
    head = feedtune.load(tmp_path / "run").policy.heads["value"]
    assert any(parameter.abs().sum() > 0 for parameter in head.parameters())


def test_init_from_a_run_starts_where_it_ended(tmp_path: Path) -> None:
    data = write_rows(tmp_path)
    run(tmp_path / "first", overrides(data, "gru", "sft", "optimizer.lr=0.01"))
    chosen = ["algorithm=ppo", "task=jsonl", f"task.path={data}", "reward=length", "callbacks=quiet"]
    chosen += ["collector.responses=8", "collector.max_new_tokens=4", "trainer.max_epochs=1"]
    chosen += ["optimizer.lr=0.0"]
    run(tmp_path / "second", [*chosen, f"init_from={tmp_path / 'first'}"])
    first, second = feedtune.load(tmp_path / "first"), feedtune.load(tmp_path / "second")
    for name, value in first.policy.backbone.state_dict().items():
        assert torch.equal(value, second.policy.backbone.state_dict()[name]), name
    assert first.codec.tokenizer.get_vocab() == second.codec.tokenizer.get_vocab()


def test_init_from_a_transformers_folder_opens_it_with_the_option_hf(tmp_path: Path) -> None:
    data = write_rows(tmp_path)
    run(tmp_path / "first", overrides(data, "transformer", "sft"))
    export = tmp_path / "first" / "export"
    (export / "feedtune.json").unlink()
    chosen = ["algorithm=reinforce", "task=jsonl", f"task.path={data}", "reward=length", "callbacks=quiet"]
    chosen += ["collector.responses=8", "collector.max_new_tokens=4", "trainer.max_epochs=1"]
    run(tmp_path / "second", [*chosen, f"init_from={export}"])
    assert feedtune.load(tmp_path / "second").policy.backbone.vocab_size > 0
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "second" / "export") is not None


def test_bf16_mixed_recomputes_old_log_probabilities(tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "transformer", "ppo", "trainer.precision=bf16-mixed")
    metrics = run(tmp_path / "run", chosen)
    assert metrics["policy/ratio"] == pytest.approx(1.0, abs=0.05)


def test_periodic_evaluation_writes_its_columns(tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "lstm", "reinforce", "evaluation.every=2", "evaluation.rows=2")
    run(tmp_path / "run", [*chosen, "trainer.max_epochs=3"])
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["eval/reward"]) for row in rows] == [False, True, True]


def test_samples_hold_what_was_said(tmp_path: Path) -> None:
    run(tmp_path / "run", overrides(write_rows(tmp_path), "lstm", "reinforce", "collector.records=3"))
    lines = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["epoch"] for r in records] == [0, 0, 0, 1, 1, 1]
    assert all({"prompt", "response", "reward"} <= set(r) for r in records)
