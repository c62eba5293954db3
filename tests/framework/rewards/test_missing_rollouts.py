"""Rollouts whose reward failed: they move nothing, whatever the algorithm; training goes on after them."""

from __future__ import annotations

import csv
import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import open_dict

from feedtune.config.compose import compose_config
from feedtune.rewards import SourceFailure
from feedtune.runs.training import train
from small_runs import overrides, write_rows

FLAKY = """
calls = []
def score(responses):
    calls.append(len(responses))
    if len(calls) in {failing}:
        raise OSError("no route to the judge")
    return [len(said) + 0.1 * row for row, said in enumerate(responses)]
"""

MISSING = "reward_calls.on_failure=missing"

seen: list[dict[str, str]] = []
"""What `Watch` has seen at the end of each epoch, as hashes."""


def digest(value: Any) -> str:
    """A hash of all tensors and numbers in nested containers."""
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.detach().contiguous().numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return digest([(str(key), digest(inner)) for key, inner in value.items()])
    if isinstance(value, list | tuple):
        return hashlib.sha256(repr([digest(inner) for inner in value]).encode()).hexdigest()
    return repr(value)


class Watch(Callback):
    """Remembers weights, target networks and what the optimiser remembers, an epoch each."""

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        state = [group | {"lr": 0} for group in trainer.optimizers[0].state_dict()["param_groups"]]
        seen.append(
            {
                "policy": digest(module.policy.state_dict()),
                "algorithm": digest(dict(module.algorithm.state_dict())),
                "optimizer": digest([trainer.optimizers[0].state_dict()["state"], state]),
            }
        )


def trained(folder: Path, algorithm: str, failing: set[int], *more: str) -> list[dict[str, str]]:
    """metrics.csv of three epochs under `Watch`; calls of these numbers fail."""
    (folder / "flaky.py").write_text(FLAKY.replace("{failing}", repr(failing)))
    config = compose_config(
        overrides(
            write_rows(folder),
            "lstm",
            algorithm,
            "reward=function",
            f"reward.path={folder / 'flaky.py'}:score",
            "trainer.max_epochs=3",
            "optimizer.lr=0.01",
            MISSING,
            *more,
        )
    )
    with open_dict(config):
        config.callbacks.watch = {"_target_": f"{__name__}.Watch"}
        config.trust = [__name__]
    seen.clear()
    (folder / "run").mkdir()
    train(config, folder / "run")
    with (folder / "run" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


CASES = {
    "reinforce": ["algorithm.advantage.baseline=running", "optimizer.weight_decay=0.1"],
    "ppo": [
        "algorithm.kl.adaptive={_target_: feedtune_plugins.algorithms.Adaptive, target: 0.1, horizon: 9}",
        "buffer.minibatches=2",
    ],
    "grpo": ["trainer.gradient_clip_val=1.0", "scheduler=cosine"],
    "online_dpo": [],
    "best_of_n": [],
    "a2c": ["trainer.accumulate_grad_batches=2", "buffer.minibatches=2"],
}


@pytest.mark.parametrize("algorithm", CASES)
def test_a_rollout_without_a_score_moves_nothing(
    algorithm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither by gradients nor by momentum, weight decay, baselines or controllers; the next one does."""
    rows = trained(tmp_path, algorithm, {2}, *CASES[algorithm])
    assert seen[1] == seen[0]
    assert seen[2]["policy"] != seen[1]["policy"]
    assert seen[2]["optimizer"] != seen[1]["optimizer"]
    assert [float(row["reward/missing"]) for row in rows] == [0.0, 8.0, 0.0]
    assert [float(row["reward/failures"]) for row in rows] == [0.0, 1.0, 0.0]
    assert [math.isnan(float(row["rollout/reward"])) for row in rows] == [False, True, False]
    assert [float(row["rollout/unscored"]) for row in rows] == [0.0, 1.0, 0.0]
    # What the losses say of nothing is not said.
    assert [row["loss/policy"] == "" for row in rows] == [False, True, False]
    told = [line for line in capsys.readouterr().err.splitlines() if "on_failure=missing" in line]
    assert len(told) == 1
    assert "raised OSError: no route to the judge" in told[0]


def test_also_the_first_rollout_may_be_lost(tmp_path: Path) -> None:
    rows = trained(tmp_path, "reinforce", {1}, "algorithm.advantage.baseline=running")
    assert [row["loss/policy"] == "" for row in rows] == [True, False, False]
    assert seen[2]["policy"] != seen[1]["policy"] != seen[0]["policy"]


def test_a_run_that_never_hears_a_score_ends_as_it_began(tmp_path: Path) -> None:
    rows = trained(tmp_path, "ppo", {1, 2, 3})
    assert seen[0] == seen[1] == seen[2]
    assert {row["reward/missing"] for row in rows} == {"8.0"}
    assert "policy" in seen[0]
    assert not any("loss/policy" in row for row in rows)


def test_remax_without_greedy_scores_has_no_baseline_and_learns_nothing(tmp_path: Path) -> None:
    """Calls 1, 3 and 5 score the responses, 2, 4 and 6 the greedy ones: a baseline of 0 would be made up."""
    rows = trained(tmp_path, "remax", {4})
    assert seen[1] == seen[0]
    assert seen[2]["policy"] != seen[1]["policy"]
    assert [float(row["reward/missing"]) for row in rows] == [0.0, 8.0, 0.0]
    assert not math.isnan(float(rows[1]["rollout/reward"]))  # which was heard, and is told
    assert math.isnan(float(rows[1]["rollout/greedy"]))


def test_rows_in_a_replay_store_teach_nothing_later(tmp_path: Path) -> None:
    """Q-learning keeps the lost rollout beside others; its rows have no actions there."""
    rows = trained(tmp_path, "q_learning", {2})
    assert [float(row["reward/missing"]) for row in rows] == [0.0, 8.0, 0.0]
    assert all(math.isfinite(float(row["loss/q"])) for row in rows if row["loss/q"])


def test_an_evaluation_that_fails_is_no_end_of_training(tmp_path: Path) -> None:
    """Calls 2, 4 and 6 are those of the evaluations, of 2 held-out rows."""
    rows = trained(
        tmp_path, "reinforce", {2}, "evaluation.every=1", "evaluation.rows=2", "task.eval_fraction=0.2"
    )
    assert [float(row["eval/missing"]) for row in rows] == [2.0, 0.0, 0.0]
    assert [float(row["reward/missing"]) for row in rows] == [0.0, 0.0, 0.0]
    assert [math.isnan(float(row["eval/reward"])) for row in rows] == [True, False, False]


def test_by_default_a_failure_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(SourceFailure, match=r"raised OSError: no route to the judge \(flaky\.py, line 6"):
        trained(tmp_path, "reinforce", {2}, "reward_calls.on_failure=stop")
    assert len(seen) == 1


def test_attempts_change_nothing_but_their_counts(tmp_path: Path) -> None:
    """A run whose calls failed and were tried again is, weight for weight, the one whose calls did not."""
    results = []
    for name, failing in {"plain": set[int](), "flaky": {2, 3}}.items():
        folder = tmp_path / name
        folder.mkdir()
        rows = trained(folder, "ppo", failing, "reward_calls.attempts=3", "reward_calls.wait=0.001")
        results.append((rows, list(seen)))
    (plain_rows, plain), (flaky_rows, flaky) = results
    assert plain == flaky
    assert [row["reward/retries"] for row in flaky_rows] == ["0.0", "2.0", "0.0"]
    for one, other in zip(plain_rows, flaky_rows, strict=True):
        names = [n for n in one if not n.startswith(("perf/", "reward/"))]
        assert {n: one[n] for n in names} == {n: other[n] for n in names}


def test_a_limit_of_time_changes_nothing(tmp_path: Path) -> None:
    """Sources run in another thread then, and draw and compute the same."""
    found = []
    for name, limit in {"without": "null", "with": "60"}.items():
        folder = tmp_path / name
        folder.mkdir()
        rows = trained(folder, "ppo", set(), f"reward_calls.timeout={limit}")
        found.append(([{k: v for k, v in r.items() if not k.startswith("perf/")} for r in rows], list(seen)))
    assert found[0] == found[1]
