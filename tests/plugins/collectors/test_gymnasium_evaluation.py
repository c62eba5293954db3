"""Evaluation plays: what is measured of a run in an environment are whole episodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from feedtune.callbacks.files import read_metrics
from feedtune.cli import main
from feedtune.commands.evaluate import evaluate_run
from feedtune.evaluation import as_json
from small_runs import SMALL

PLAYING = [
    "collector=gymnasium",
    "task=gymnasium",
    "collector.options={length: 3, alphabet: ab}",
    "collector.episodes=8",
    "task.rows=4",
    "task.eval_rows=6",
    "tokenizer=char",
    "reward=keyword",
    "reward.words=[a]",
    "reward.whole_words=false",
    "callbacks=quiet",
    "report=false",
    "evaluation.every=1",
]


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_held_out_episodes_are_played(algorithm: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    chosen = [*SMALL["gru"], *PLAYING, f"algorithm={algorithm}", "trainer.max_epochs=1"]
    assert main(["train", *chosen, f"hydra.run.dir={folder}"]) == 0
    found, before = evaluate_run(folder)
    (last,) = read_metrics(folder / "metrics.csv", 9)  # as measured while training
    assert found.metrics["eval/reward"] == pytest.approx(float(last["eval/reward"]))
    assert len(found.records) == 6
    assert all(len(record["messages"]) > 1 for record in found.records)
    rewards = [record["reward"] for record in found.records]
    assert found.metrics["eval/reward"] == pytest.approx(sum(rewards) / 6)
    turns = [sum(m["role"] == "assistant" for m in record["messages"]) for record in found.records]
    assert found.metrics["eval/turns"] == pytest.approx(sum(turns) / 6)
    if algorithm == "ppo":
        assert before is not None
        assert before.metrics["eval/kl"] == 0.0
        assert found.metrics["eval/kl"] != 0.0
    json.dumps(as_json(found, before), allow_nan=False)
