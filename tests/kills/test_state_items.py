"""Each item of state in a checkpoint matters: made wrong, the run ends otherwise. None can be forgotten."""

from __future__ import annotations

import shutil
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kills.cases import ADAPTIVE, FALLING, SCALED, Case
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
                SCALED,
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
                "algorithm.scaling.rows",
                "algorithm.scaling.mean",
                "algorithm.scaling.squares",
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
                "loader collected",
                "loader yielded",
                "loader buffer",
                "rng torch",
                "rng numpy",
                "rng python",
                "metrics",
                "records",
                "stopwatch tokens",
                "tokens",
            }
        ),
    ),
    "reinforce": Setting(
        Case("lstm", "reinforce", ("algorithm.advantage.baseline=running", "trainer.max_epochs=4")),
        {"place": "closed", "n": 1},
        frozenset({"algorithm.advantage.running", "algorithm.advantage.rollouts"}),
    ),
    "alarms": Setting(
        Case(
            "lstm",
            "ppo",
            (
                ADAPTIVE,
                "callbacks=default",
                "callbacks.alarms.first=4",  # the kill comes while the first epochs are summed up,
                "callbacks.alarms.in_a_row=2",
                "callbacks.alarms.kl=1e-12",  # after this one has been said,
                "callbacks.alarms.entropy=1.1",  # and before this one compares, and rings from then on
                "callbacks.alarms.hacking=1e-6",
                "reward=function",
                "reward.path=kills.opposed:proxy",
                "reward@monitor.reward=function",
                "monitor.reward.path=kills.opposed:wanted",
                "task.eval_fraction=0.3",
                "evaluation.every=1",
                "buffer.passes=1",
                "trainer.max_epochs=6",
            ),
        ),
        {"place": "closed", "n": 2},
        frozenset(f"callback Alarms {name}" for name in ("epochs", "sums", "streaks", "said", "best")),
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
    "callbacks": "none but the alarms has a state",
    "rng cuda": "of GPUs, of which there is none",
    "guard": "counts what on_nonfinite=skip leaves out",
    "pytorch-lightning_version": "by which Lightning changes states of older versions",
    "stopwatch": "seconds, which are never the same: perf/*",
    "rows": "for the histograms of logger=wandb; tests/framework/tracking looks at them",
    "feedtune": "the seed, which the config says as well",
}
"""Items that change nothing, and why."""


SHORT = frozenset(
    {"weights", "optimizer exp_avg", "scheduler last_epoch", "loader buffer", "rng torch", "metrics"}
)
"""One item of each kind; the others take as long again and are made wrong under `-m slow`."""


@dataclass(frozen=True)
class Ending:
    """How a run ends that goes on from some state, and what it said of alarms on the way."""

    files: dict[str, Any]
    alarms: tuple[str, ...]


def test_some_items_of_state_matter(nursery: Nursery, tmp_path: Path) -> None:
    """And there are no others than those that are known."""
    _check(nursery, tmp_path, "ppo", SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_each_item_of_state_matters(nursery: Nursery, tmp_path: Path, name: str) -> None:
    _check(nursery, tmp_path, name, SETTINGS[name].matters | set(INERT))


def _check(nursery: Nursery, tmp_path: Path, name: str, chosen: Set[str]) -> None:
    """Make each of these items wrong: those that matter, and only those, change how the run ends."""
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

    right = _ending(nursery, run, tmp_path / "as it was", state)
    assert right.files == whole
    same = set()
    for item in sorted(chosen & found):
        wrong = spoiled(state, item)
        if item in setting.matters:
            assert digest(wrong) != digest(state), item
        ending = _ending(nursery, run, tmp_path / item.replace(" ", "_"), wrong)
        if ending == right:
            same.add(item)
    assert same == chosen & found & set(INERT)


def _ending(nursery: Nursery, run: Path, folder: Path, state: dict[str, Any]) -> Ending:
    """How a killed run ends that goes on from this state, as it has to: a crash says nothing of the item."""
    copy = folder / "run"
    shutil.copytree(run, copy)
    rewrite(copy, state)
    life = nursery.run("resume", str(copy), "--trust", log=folder / "log.txt")
    lines = (folder / "log.txt").read_text().splitlines()
    assert life.code == 0, f"{folder.name}: {life.said()}"
    return Ending(fingerprint(copy), tuple(line for line in lines if line.startswith("alarm/")))
