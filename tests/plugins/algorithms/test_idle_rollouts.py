"""Rollouts that cannot teach what they seem to: they are refused by the key to turn, or waited out."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedtune.agent import Agent
from feedtune.contracts import Algorithm
from feedtune.errors import UserError
from feedtune.text.tokenizers import TrainedTokenizer
from feedtune_plugins.algorithms import (
    GAE,
    Adaptive,
    Clip,
    KLPenalty,
    MonteCarlo,
    PolicyGradient,
    ValueLoss,
)
from feedtune_plugins.backbones.ngram import NGram
from feedtune_plugins.buffers import Epochs
from small_runs import overrides, run, write_rows

NOBODY_SAYS_IT = ["reward=keyword", "reward.words=[xyzzy]"]
CLIP = "algorithm.surrogate={_target_: feedtune_plugins.algorithms.Clip}"


def trained(folder: Path, algorithm: str, *more: str) -> list[dict[str, str]]:
    """metrics.csv of a tiny run."""
    run(folder, overrides(write_rows(folder), "ngram", algorithm, *more))
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_where_all_pairs_tie_training_goes_on_and_logs_no_nan(tmp_path: Path) -> None:
    rows = trained(tmp_path, "online_dpo", *NOBODY_SAYS_IT)
    assert [float(row["rollout/dropped_pairs"]) for row in rows] == [1.0, 1.0]
    assert "nan" not in {value.lower() for row in rows for value in row.values()}
    assert not any("preference_accuracy" in row or "loss/policy" in row for row in rows)


def test_raft_that_keeps_whole_groups_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"algorithm\.keep: 4 of 4 .* set collector\.group_size above 4"):
        trained(tmp_path, "raft", "algorithm.keep=4")


@pytest.mark.parametrize(
    ("algorithm", "buffer", "steps"),
    [
        ("reinforce", ["buffer=epochs"], 4),
        ("a2c", ["buffer.passes=2"], 2),
        ("remax", ["buffer.minibatches=3"], 3),
        ("rloo", ["buffer.minibatches=2", "buffer.passes=2", "trainer.accumulate_grad_batches=3"], 2),
    ],
)
def test_further_steps_on_a_rollout_need_a_ratio(
    tmp_path: Path, algorithm: str, buffer: list[str], steps: int
) -> None:
    message = rf"buffer: {steps} optimiser steps .*buffer\.passes, buffer\.minibatches.*algorithm\.surrogate="
    with pytest.raises(UserError, match=message):
        trained(tmp_path, algorithm, *buffer)


@pytest.mark.parametrize(
    "more",
    [
        ["buffer=epochs", CLIP],
        # four micro-batches of one step: the policy does not move between them
        ["buffer.minibatches=4", "trainer.accumulate_grad_batches=4"],
    ],
)
def test_with_a_ratio_or_within_one_step_they_are_welcome(tmp_path: Path, more: list[str]) -> None:
    assert len(trained(tmp_path, "reinforce", *more)) == 2


def test_agents_refuse_them_too() -> None:
    codec = TrainedTokenizer(kind="char").build(lambda: ["ab"])

    def agent(algorithm: Algorithm) -> Agent:
        backbone: Callable[[], NGram] = lambda: NGram(vocab_size=codec.vocab_size, n=2)  # noqa: E731
        return Agent(algorithm, backbone, codec, buffer=Epochs(passes=3), episodes=2)

    with pytest.raises(UserError, match="buffer: 3 optimiser steps on each rollout"):
        agent(PolicyGradient(advantage=MonteCarlo()))
    agent(PolicyGradient(advantage=MonteCarlo(), surrogate=Clip()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PolicyGradient(advantage=GAE(), value=ValueLoss(clip=0.2)),
            "algorithm.value.clip: only algorithm.surrogate has a use for it; leave it null",
        ),
        (
            lambda: KLPenalty(coefficient=0.0, adaptive=Adaptive()),
            "algorithm.kl.adaptive: only algorithm.kl.coefficient above 0 has a use for it; leave it null",
        ),
        *(
            (
                lambda baseline=baseline: MonteCarlo(baseline=baseline, scale="tokens"),
                f"algorithm.advantage.baseline: {baseline} over the rollout is the same for all tokens, and "
                "scale=tokens takes their mean off anyway; leave it none",
            )
            for baseline in ("mean", "running")
        ),
    ],
)
def test_options_that_would_change_nothing_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == message


def test_they_are_welcome_where_they_change_something() -> None:
    MonteCarlo(baseline="mean", scope="group", scale="tokens")  # one mean a prompt
    MonteCarlo(baseline="mean", gamma=0.9, scale="tokens")  # gamma^t (G_t - b): another shift for each t
    PolicyGradient(advantage=GAE(), value=ValueLoss(clip=0.2), surrogate=Clip())
