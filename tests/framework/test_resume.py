"""A run that was killed and resumed ends as the one that was not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import open_dict

import feedtune
from feedtune.config.compose import compose_config
from feedtune.module import TuningModule
from feedtune.runs.training import train
from small_runs import fingerprint, newest_state, overrides, run, write_rows

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
FOUR_STEPS = [
    "buffer.passes=1",
    "buffer.minibatches=8",
    "trainer.accumulate_grad_batches=2",
    "optimizer.lr=0.01",
]
"""Of each epoch, two micro-batches each."""


class Killed(BaseException):
    """The end of the process, as far as exceptions can stand for it."""


@contextmanager
def killed_after(step: int) -> Iterator[None]:
    """What trains inside ends once the optimiser has made so many steps and their checkpoint is there."""

    def on_train_batch_start(module: TuningModule, batch: Any, batch_idx: int) -> None:
        if module.trainer.global_step == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(TuningModule, "on_train_batch_start", on_train_batch_start)
        yield


def steps_of(folder: Path) -> int:
    return int(torch.load(newest_state(folder), weights_only=True)["global_step"])


@pytest.mark.parametrize("case", CASES)
def test_killed_at_every_step_and_resumed_is_the_same(tmp_path: Path, case: str) -> None:
    backbone, algorithm, more = CASES[case]
    chosen = overrides(write_rows(tmp_path), backbone, algorithm, *more)
    chosen += [f"trainer.max_epochs={EPOCHS}", "checkpoint.every_steps=1", "optimizer.lr=0.01"]
    run(tmp_path / "whole", chosen)
    expected = fingerprint(tmp_path / "whole")
    total = steps_of(tmp_path / "whole")
    assert total >= EPOCHS

    for step in range(1, total):
        folder = tmp_path / f"killed{step}"
        with killed_after(step):
            run(folder, chosen)
        assert steps_of(folder) == step
        train(compose_config(chosen), folder, newest_state(folder))
        assert fingerprint(folder) == expected, f"killed after step {step} of {total}"


def test_a_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo")
    folder = tmp_path / "run"
    run(folder, chosen)
    before = fingerprint(folder)
    train(compose_config(chosen), folder, newest_state(folder))
    assert fingerprint(folder) == before


def test_more_epochs_after_the_end_equal_one_longer_run(tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo")
    run(tmp_path / "long", [*chosen, "trainer.max_epochs=4"])
    run(tmp_path / "short", chosen)
    folder = tmp_path / "short"
    train(compose_config([*chosen, "trainer.max_epochs=4"]), folder, newest_state(folder))
    assert fingerprint(folder) == fingerprint(tmp_path / "long")


@pytest.mark.parametrize("steps", [2, 4, 5])
def test_more_steps_after_the_end_equal_one_longer_run(tmp_path: Path, steps: int) -> None:
    """Epochs of four steps, two micro-batches each: the end comes within the first, with it, in the second.

    Lightning ends an epoch, row and all, where max_steps ends training; and where max_steps is set it goes on
    from the end of an epoch with a minibatch too many.
    """
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo", *FOUR_STEPS)
    run(tmp_path / "long", [*chosen, "trainer.max_steps=7"])
    folder = tmp_path / "short"
    run(folder, [*chosen, f"trainer.max_steps={steps}"])
    assert steps_of(folder) == steps
    train(compose_config([*chosen, "trainer.max_steps=7"]), folder, newest_state(folder))
    assert fingerprint(folder) == fingerprint(tmp_path / "long")


@dataclass
class StopAfter(Callback):
    """Asks for the end of training after so many minibatches, as a time limit would."""

    minibatches: int

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        self.minibatches -= 1
        if self.minibatches == 0:
            trainer.should_stop = True


def test_a_stop_within_a_step_waits_for_its_end(tmp_path: Path) -> None:
    """Asked for after the fifth minibatch, the first of the third step: training ends after the sixth."""
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo", *FOUR_STEPS)
    run(tmp_path / "whole", chosen)
    config = compose_config(chosen)
    with open_dict(config):
        config.callbacks.stop = {"_target_": f"{__name__}.StopAfter", "minibatches": 5}
        config.trust = [__name__]
    folder = tmp_path / "stopped"
    folder.mkdir()
    train(config, folder)
    assert steps_of(folder) == 3
    trained = torch.load(newest_state(folder), weights_only=True)["state_dict"]
    for name, value in feedtune.load(folder).policy.state_dict().items():
        assert torch.equal(value, trained[f"policy.{name}"]), name  # what was exported is what was saved
    train(compose_config(chosen), folder, newest_state(folder), force=True)  # without the callback that stops
    assert fingerprint(folder) == fingerprint(tmp_path / "whole")
