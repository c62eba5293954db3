"""Tiny runs for tests: every backbone small, one file of rows, seconds each."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from feedtune.checkpoints import newest
from feedtune.config.compose import compose_config
from feedtune.runs.training import train

ROWS = [{"prompt": f"{a}+{b}=", "reference": str(a + b)} for a in range(5) for b in range(5)]

PAIRS = [{"prompt": f"{a}+1=", "chosen": str(a + 1), "rejected": str(a)} for a in range(9)]
"""Preferences: the sum rather than what was there before."""

SMALL = {
    "ngram": ["backbone=ngram", "backbone.n=2", "backbone.buckets=64"],
    "lstm": ["backbone=lstm", "backbone.embed_size=12", "backbone.hidden_size=16", "backbone.layers=1"],
    "gru": ["backbone=gru", "backbone.embed_size=12", "backbone.hidden_size=16", "backbone.layers=1"],
    "transformer": [
        "backbone=transformer",
        "backbone.hidden_size=16",
        "backbone.layers=1",
        "backbone.heads=2",
        "backbone.kv_heads=2",
        "backbone.intermediate_size=32",
        "backbone.context_length=64",
    ],
}
"""Overrides that make each from-scratch backbone tiny."""

ROLLOUT = ["collector.responses=8", "collector.max_new_tokens=4"]


def write_rows(folder: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    """A JSONL file of questions and answers."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or ROWS))
    return path


def rows_for(algorithm: str) -> list[dict[str, Any]]:
    """What an algorithm can read."""
    return PAIRS if "pairs" in compose_config([f"algorithm={algorithm}"]).collector else ROWS


def overrides(data: Path, backbone: str, algorithm: str, *more: str) -> list[str]:
    """A tiny run of two epochs."""
    collector = compose_config([f"algorithm={algorithm}"]).collector
    rollout = ROLLOUT if "responses" in collector else ["collector.rows=8"]
    if "pairs" in collector:
        rollout = ["collector.pairs=4"]
    if collector.get("group_size", 1) > 4:
        rollout = [*rollout, "collector.group_size=4"]
    if collector.get("rewards") == "column":
        rollout = [*rollout, "collector.rewards=source"]  # the rows bring no number: the source scores them
    if algorithm == "dapo":
        rollout = [*rollout, "algorithm.overlong.margin=2"]
    return [
        f"algorithm={algorithm}",
        *SMALL[backbone],
        "tokenizer=char",
        "task=jsonl",
        f"task.path={data}",
        "reward=length",
        "callbacks=quiet",
        "selfcheck=false",
        "trainer.max_epochs=2",
        *rollout,
        *more,
    ]


def run(folder: Path, chosen: list[str]) -> dict[str, float]:
    """Train in this process, as `feedtune train` would."""
    folder.mkdir(parents=True, exist_ok=True)
    return train(compose_config(chosen), folder)


def newest_state(folder: Path) -> Path:
    """The state file of a run's newest checkpoint."""
    state = newest(folder)
    assert state is not None, f"{folder} has no checkpoint"
    return state


def fingerprint(folder: Path) -> dict[str, Any]:
    """What two equal runs share: weights, metrics (but perf/*) and samples."""
    checkpoint = torch.load(newest_state(folder), weights_only=True)
    digest = hashlib.sha256()
    for name, tensor in sorted(checkpoint["state_dict"].items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in csv.DictReader(file)]
    samples = folder / "samples.jsonl"
    return {
        "weights": digest.hexdigest(),
        "metrics": rows,
        "samples": samples.read_text() if samples.exists() else "",
    }
