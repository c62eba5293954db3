"""A run that was killed and resumed ends as the one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback
from omegaconf import open_dict

from feedtune.config.compose import compose_config
from feedtune.runs.training import LAST, train
from small_runs import fingerprint, overrides, run, write_rows

CASES = {
    "sft on a transformer with dropout": ("transformer", "sft", ["backbone.dropout=0.2"]),
    "sft with accumulation": ("gru", "sft", ["trainer.accumulate_grad_batches=2", "scheduler=cosine"]),
    "reinforce with a running baseline": (
        "lstm",
        "reinforce",
        ["algorithm.advantage.baseline=running"],
    ),
    "ppo with an adaptive leash": (
        "lstm",
        "ppo",
        [
            "algorithm.kl.adaptive={_target_: feedtune_plugins.algorithms.Adaptive, target: 0.1, horizon: 9}",
            "buffer.minibatches=2",
        ],
    ),
    "ppo with accumulation": (
        "transformer",
        "ppo",
        ["buffer.minibatches=4", "trainer.accumulate_grad_batches=2"],
    ),
    "q_learning with replay": ("ngram", "q_learning", ["buffer.updates=3", "buffer.minibatch_size=4"]),
}
EPOCHS = 3


class KilledError(Exception):
    """Stands for the end of the process."""


class KillAfter(Callback):
    """Raises once the optimiser has made so many steps, after the checkpoint of that step was written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise KilledError


def _steps_of(folder: Path) -> int:
    import torch

    return int(torch.load(folder / LAST, weights_only=True)["global_step"])


@pytest.mark.parametrize("case", CASES)
def test_killed_at_every_step_and_resumed_is_the_same(tmp_path: Path, case: str) -> None:
    backbone, algorithm, more = CASES[case]
    chosen = overrides(write_rows(tmp_path), backbone, algorithm, *more)
    chosen += [f"trainer.max_epochs={EPOCHS}", "checkpoint.every_steps=1", "optimizer.lr=0.01"]
    run(tmp_path / "whole", chosen)
    expected = fingerprint(tmp_path / "whole")
    total = _steps_of(tmp_path / "whole")
    assert total >= EPOCHS

    for step in range(1, total):
        folder = tmp_path / f"killed{step}"
        folder.mkdir()
        config = compose_config(chosen)
        with open_dict(config):
            config.callbacks.kill = {"_target_": f"{__name__}.KillAfter", "step": step}
            config.trust = [__name__]
        with pytest.raises(KilledError):
            train(config, folder)
        assert _steps_of(folder) == step
        train(compose_config(chosen), folder, folder / LAST)
        assert fingerprint(folder) == expected, f"killed after step {step} of {total}"


def test_a_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo")
    folder = tmp_path / "run"
    run(folder, chosen)
    before = fingerprint(folder)
    train(compose_config(chosen), folder, folder / LAST)
    assert fingerprint(folder) == before


def test_more_epochs_after_the_end_equal_one_longer_run(tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo")
    run(tmp_path / "long", [*chosen, "trainer.max_epochs=4"])
    run(tmp_path / "short", chosen)
    folder = tmp_path / "short"
    train(compose_config([*chosen, "trainer.max_epochs=4"]), folder, folder / LAST)
    assert fingerprint(folder) == fingerprint(tmp_path / "long")
