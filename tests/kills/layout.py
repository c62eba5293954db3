"""What this harness knows of a run folder, and the one way to say how a run has ended."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from feedtune.checkpoints import listed, newest, read_manifest
from feedtune.checkpoints.store import FOLDER, MANIFEST, STATE, Draft

EVERY_STEP = "checkpoint.every_steps=1"
EVERY_EPOCH = "checkpoint.every_epochs=1"

MANIFEST_ONLY = ("format", "files", "digest")
"""What a manifest says that `Draft.publish` fills in itself."""


def state_of(run: Path) -> dict[str, Any]:
    """The newest checkpoint of a run, as it would be loaded."""
    path = newest(run)
    assert path is not None, f"{run} has no checkpoint"
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def has_checkpoint(run: Path) -> bool:
    """Whether there is anything to go on from."""
    return bool(listed(run))


def left_over(run: Path) -> list[str]:
    """What lies in the folder of checkpoints and is none."""
    known = {folder.name for folder in listed(run)}
    return sorted(path.name for path in (run / FOLDER).iterdir() if path.name not in known)


def rewrite(run: Path, state: dict[str, Any]) -> None:
    """Put another state into the newest checkpoint, with a manifest that is true of it."""
    folder = listed(run)[-1]
    manifest = read_manifest(folder)
    facts = {name: value for name, value in manifest.items() if name not in MANIFEST_ONLY}
    content = io.BytesIO()
    torch.save(state, content)
    draft = Draft(run)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST:
            draft.add(name, content.getvalue() if name == STATE else path.read_bytes())
    draft.publish(folder.name, facts, replace=True)


def fingerprint(run: Path) -> dict[str, Any]:
    """What two equal runs share: weights, all other state, metrics (but perf/*), samples and the export."""
    state = state_of(run)
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in csv.DictReader(file)]
    samples = run / "samples.jsonl"
    weights = sorted((run / "export").glob("*.safetensors"))
    ranks = [
        {name: value for name, value in rank.items() if name != "stopwatch"}
        for rank in state["feedtune"]["ranks"]
    ]
    return {
        "weights": digest(state["state_dict"]),
        "rest": digest([state["optimizer_states"], state["lr_schedulers"], ranks, state["global_step"]]),
        "metrics": rows,
        "samples": samples.read_text() if samples.exists() else "",
        "export": [hashlib.sha256(path.read_bytes()).hexdigest() for path in weights],
    }


def digest(value: Any) -> str:
    """A sha256 of nested mappings, sequences, tensors and plain values."""
    found = hashlib.sha256()
    _feed(found, value)
    return found.hexdigest()


def _feed(found: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        found.update(f"{value.dtype}{tuple(value.shape)}".encode())
        found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            found.update(f"{{{key!r}".encode())
            _feed(found, value[key])
    elif isinstance(value, list | tuple):
        found.update(f"[{len(value)}".encode())
        for one in value:
            _feed(found, one)
    else:
        found.update(repr(value).encode())
