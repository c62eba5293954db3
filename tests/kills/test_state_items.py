"""Each item of state in a checkpoint matters: made wrong, the run ends otherwise. None can be forgotten."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kills.cases import ADAPTIVE, FALLING, Case
from kills.layout import digest, fingerprint, rewrite, state_of
from kills.nursery import Nursery
from kills.state_items import items, spoiled
from kills.stories import live

NOISY = ("reward=function", "reward.path=kills.noisy:score")  # draws from every global generator


@dataclass(frozen=True)
class Setting:
    """A run, where it is killed, and the items of its checkpoint without which it ends otherwise."""

    case: Case
    kill: dict[str, Any]
    matters: frozenset[str]


SETTINGS = {
    "ppo": Setting(
        Case(
            "transformer",
            "ppo",
            (
                *NOISY,
                ADAPTIVE,
                "backbone.dropout=0.2",
                "scheduler=cosine",
                "buffer.passes=1",
                "buffer.minibatches=3",
                "trainer.max_epochs=3",
            ),
        ),
        {"place": "saved", "n": 4},  # the second of three minibatches of the second of three rollouts
        frozenset(
            {
                "weights",
                "algorithm.kl.beta",
                "optimizer exp_avg",
                "optimizer exp_avg_sq",
                "optimizer step",
                "learning rate",
                "optimizer settings",
                "scheduler base_lrs",
                "scheduler last_epoch",
                "scheduler otherwise",
                "loop epoch_progress",
                "loop epoch_loop.batch_progress",
                "loop optim_progress",
                "reference",
                "pytorch-lightning_version",
                "loader collected",
                "loader yielded",
                "loader buffer",
                "rng torch",
                "rng numpy",
                "rng python",
                "metrics",
                "records",
            }
        ),
    ),
    "reinforce": Setting(
        Case("lstm", "reinforce", ("algorithm.advantage.baseline=running", "trainer.max_epochs=4")),
        {"place": "closed", "n": 1},
        frozenset({"algorithm.advantage.running", "algorithm.advantage.rollouts"}),
    ),
    "dqn": Setting(
        Case("lstm", "dqn", (FALLING, "buffer.updates=3", "buffer.minibatch_size=4", "trainer.max_epochs=3")),
        {"place": "saved", "n": 4},
        frozenset({"algorithm.steps", "algorithm.target.steps", "algorithm.target network", "loader buffer"}),
    ),
}

INERT = {
    "epoch": "for people: Lightning goes by its loops",
    "global_step": "for people, too",
    "loops otherwise": "counters of loops that do not run, or that nothing reads",
    "callbacks": "none has a state",
    "rng cuda": "of GPUs, of which there is none",
    "guard": "counts what on_nonfinite=skip leaves out",
    "stopwatch": "seconds, which are never the same: perf/*",
    "feedtune": "the seed, which the config says as well",
}
"""Items that change nothing, and why."""


@pytest.mark.parametrize(
    "name", ["ppo", *(pytest.param(one, marks=pytest.mark.slow) for one in ("reinforce", "dqn"))]
)
def test_each_item_of_state_matters(nursery: Nursery, tmp_path: Path, name: str) -> None:
    setting = SETTINGS[name]
    whole = live(nursery, setting.case, tmp_path / "whole").ending()
    arguments = setting.case.arguments(tmp_path / "killed")
    life = nursery.run(*arguments, log=tmp_path / "log.txt", kill=setting.kill)
    assert life.killed, life.said()
    run = tmp_path / "killed" / "run"
    state = state_of(run)
    found = set(items(state))

    known = set(INERT).union(*(one.matters for one in SETTINGS.values()))
    assert found - known == set(), "new items of state: say whether they matter"
    assert setting.matters <= found

    assert _ending(nursery, run, tmp_path / "as it was", state) == whole
    outcomes = {}
    for item in sorted(setting.matters | (found & set(INERT))):
        wrong = spoiled(state, item)
        outcomes[item] = _ending(nursery, run, tmp_path / item.replace(" ", "_"), wrong) == whole
        if item in setting.matters:
            assert digest(wrong) != digest(state), item
    assert {item for item, same in outcomes.items() if same} == found & set(INERT)


def _ending(nursery: Nursery, run: Path, folder: Path, state: dict[str, Any]) -> dict[str, Any] | None:
    """How a killed run ends that goes on from this state; None: it fails."""
    copy = folder / "run"
    shutil.copytree(run, copy)
    rewrite(copy, state)
    life = nursery.run("resume", str(copy), "--trust", log=folder / "log.txt")
    return fingerprint(copy) if life.code == 0 else None
