"""What W&B is told of a run with everything on, read back by `wandb leet inspect`."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import wandb

from wandb_files import CANARY, Tracked, metrics_of

SECTIONS = ("rollout", "loss", "policy", "eval", "alarm", "perf", "progress")


def samples_of(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


def test_every_value_is_that_of_metrics_csv(tracked_run: Tracked) -> None:
    rows = metrics_of(tracked_run.folder)
    assert len(rows) == 3
    assert {name.split("/")[0] for name in rows[0]} >= set(SECTIONS)
    assert tracked_run.offline.metrics() == rows
    assert [row["trainer/global_step"] for row in tracked_run.offline.history] == [3, 7, 11]


def test_the_counters_are_what_they_say(tracked_run: Tracked) -> None:
    """8 responses a rollout, 4 optimiser steps (2 passes over 2 minibatches) each."""
    rows = metrics_of(tracked_run.folder)
    assert [row["progress/rollouts"] for row in rows] == [1, 2, 3]
    assert [row["progress/updates"] for row in rows] == [4, 8, 12]
    tokens = [8 * row["rollout/length"] for row in rows]
    assert [row["progress/tokens"] for row in rows] == [sum(tokens[: n + 1]) for n in range(3)]


def test_metrics_have_their_axes(tracked_run: Tracked) -> None:
    defined = tracked_run.offline.of("metric")
    axes = {one["glob_name"]: one["step_metric"] for one in defined if "glob_name" in one}
    assert {name: axes[f"{name}/*"] for name in ("rollout", "histogram", "eval", "alarm")} == dict.fromkeys(
        ("rollout", "histogram", "eval", "alarm"), "progress/rollouts"
    )
    assert axes["loss/*"] == axes["policy/*"] == "progress/updates"
    assert axes["perf/*"] == "progress/tokens"
    assert {one["name"] for one in defined if "name" in one} == set(axes.values())
    assert all(name.endswith("/*") for name in axes)


def test_the_run_is_described(tracked_run: Tracked) -> None:
    said = tracked_run.offline.run
    expected = {
        "project": "tuning",
        "entity": "crew",
        "display_name": "first",
        "run_group": "seeds",
        "job_type": "study",
        "tags": ["one", "two"],
        "notes": "about lengths",
    }
    assert {name: said.get(name) for name in expected} == expected
    assert said["run_id"] == (tracked_run.folder / "wandb_id.txt").read_text().strip()
    assert tracked_run.offline.of("exit") == [{"exit_code": 0, **_runtime(tracked_run)}]
    assert wandb.run is None  # closed, so that the next run of a sweep is one of its own


def _runtime(tracked_run: Tracked) -> dict[str, int]:
    return {name: value for name, value in tracked_run.offline.of("exit")[0].items() if name == "runtime"}


def test_the_config_has_choices_values_versions_and_code(tracked_run: Tracked) -> None:
    config = tracked_run.offline.config
    assert {name: config[name] for name in ("backbone", "algorithm", "reward", "task", "logger")} == {
        "backbone": "lstm",
        "algorithm": "ppo",
        "reward": "sum",
        "task": "jsonl",
        "logger": "wandb",
    }
    assert not [name for name in config if name.startswith("hydra/")]
    assert "experiment" not in config  # none was chosen
    values = config["values"]
    assert values["backbone"]["hidden_size"] == 16
    assert values["collector"]["max_new_tokens"] == values["evaluation"]["max_new_tokens"] == 4  # resolved
    assert values["run_dir"] == str(tracked_run.folder)
    assert config["versions"] == {
        "feedtune": version("feedtune"),
        "lightning": version("lightning"),
        "transformers": version("transformers"),
        "torch": str(torch.__version__),
    }
    commit = tracked_run.offline.run["git"]["commit"]
    assert config["code"] == {"commit": commit, "changed": False}
    assert len(commit) == 40
    assert tracked_run.offline.run["git"]["remote_url"] == "https://example.org/me/mine.git"


def test_the_tables_are_the_samples(tracked_run: Tracked) -> None:
    samples = samples_of(tracked_run.folder)
    sources = ["reward/length", "reward/sentiment"]
    for epoch, row in enumerate(tracked_run.offline.history):
        table = tracked_run.offline.table(row)
        assert table["columns"] == ["epoch", "prompt", "response", "reward", *sources, "kl", "length"]
        keys = ("epoch", "prompt", "response", "reward", *sources, "kl_total", "length")
        assert table["data"] == [[one[k] for k in keys] for one in samples if one["epoch"] == epoch]
        assert all(one is not None for line in table["data"] for one in line)
    assert len(samples) == 3 * 8


def test_lengths_and_kl_of_samples_are_those_of_all_rows(tracked_run: Tracked) -> None:
    """Here all 8 responses of a rollout are kept, so their means are the rollout's metrics."""
    rows = metrics_of(tracked_run.folder)
    for epoch, row in enumerate(rows):
        samples = [one for one in samples_of(tracked_run.folder) if one["epoch"] == epoch]
        names = {"length": "rollout/length", "kl_total": "policy/kl", "reward": "rollout/reward"}
        for key, name in names.items():
            mean = sum(float(str(one[key])) for one in samples) / 8
            assert mean == pytest.approx(row[name], abs=1e-5), key
    assert rows[-1]["policy/kl"] != 0


@pytest.mark.parametrize("name", ["reward", "length"])
def test_the_histograms_are_of_every_row(tracked_run: Tracked, name: str) -> None:
    """W&B counts into 64 bins from the least value to the largest, which belongs to the last."""
    for epoch, row in enumerate(tracked_run.offline.history):
        assert row[f"histogram/{name}._type"] == "histogram"
        bins, counts = row[f"histogram/{name}.bins"], row[f"histogram/{name}.values"]
        values = [float(str(one[name])) for one in samples_of(tracked_run.folder) if one["epoch"] == epoch]
        assert (bins[0], bins[-1]) == pytest.approx((min(values), max(values)))
        width = bins[1] - bins[0]
        places = Counter(min(63, math.floor((value - bins[0]) / width + 1e-6)) for value in values)
        assert {n: count for n, count in enumerate(counts) if count} == dict(places)
        assert sum(counts) == 8


def test_the_model_is_an_artifact_of_the_exported_files(tracked_run: Tracked) -> None:
    [model] = tracked_run.offline.artifacts("model-")
    assert model["type"] == "model"
    assert sorted(model["aliases"]) == ["final", "latest"]
    export = tracked_run.folder / "export"
    files = {str(path.relative_to(export)): path.read_bytes() for path in export.rglob("*") if path.is_file()}
    said = {one["path"]: one["digest"] for one in model["manifest"]["contents"]}
    digests = {name: base64.b64encode(hashlib.md5(data).digest()).decode() for name, data in files.items()}
    assert said == digests
    assert "backbone.safetensors" in said
    last = metrics_of(tracked_run.folder)[-1]
    metadata = json.loads(model["metadata"])
    assert metadata["rollout/reward"] == pytest.approx(last["rollout/reward"])


def test_no_file_of_it_holds_a_secret(tracked_run: Tracked) -> None:
    """In the environment, printed by a reward source, in the URL of the Git remote."""
    files = [path for path in tracked_run.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []
    repository = (tracked_run.folder.parent / ".git" / "config").read_text()
    assert CANARY in repository
