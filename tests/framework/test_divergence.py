"""Training that goes wrong: it stops with words, and leaves nothing that is not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from feedtune.checkpoints import listed, newest
from small_runs import overrides


def test_a_diverged_run_stops_and_saves_nothing_of_it(rows: Path, feedtune: Any) -> None:
    """The first step leaves weights of 1e30, whose logits overflow: the second loss is no number."""
    said = feedtune("train", *sft(), "optimizer.lr=1e30", "optimizer=sgd", "trainer.gradient_clip_val=null")
    assert said.code == 2
    mistake = said.err.splitlines()[-1]
    assert mistake.startswith("feedtune: training diverged: ")
    words = [
        "not finite at optimiser step 2 of epoch 1",
        "optimizer.lr",
        "trainer.gradient_clip_val",
        "precision",
    ]
    assert [word for word in words if word not in mistake] == []
    assert not (rows.parent / "run" / "export" / "feedtune.json").exists()
    assert weights_are_finite(newest(rows.parent / "run"))


def test_a_last_step_that_leaves_no_number_is_not_saved(rows: Path, feedtune: Any) -> None:
    """An infinite rate: the only loss is finite, the weights after its step are not."""
    said = feedtune("train", *sft(), "optimizer.lr=inf", "trainer.max_steps=1")
    assert said.code == 2
    assert "training diverged: the weight" in said.err
    assert "not finite after optimiser step 1." in said.err
    assert not (rows.parent / "run" / "export" / "feedtune.json").exists()
    assert listed(rows.parent / "run") == []


def sft() -> list[str]:
    return overrides(Path("rows.jsonl"), "lstm", "sft", "report=false", "hydra.run.dir=run")


def weights_are_finite(checkpoint: Path | None) -> bool:
    """Also of a checkpoint that was never written."""
    if checkpoint is None:
        return True
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    return all(bool(weight.isfinite().all()) for weight in state.values())
