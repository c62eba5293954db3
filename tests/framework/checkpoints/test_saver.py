"""When checkpoints are written, which of them stay, and what is in them: tiny runs of four steps an epoch."""

from __future__ import annotations

import csv
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from feedtune.callbacks import SaveCheckpoints
from feedtune.checkpoints import listed, read_manifest, saver, verified
from feedtune.checkpoints.store import Draft, step_name
from feedtune.config.compose import compose_config
from feedtune.errors import UserError
from feedtune.module import TuningModule
from feedtune.runs.training import train
from feedtune.text.codec import Codec
from small_runs import fingerprint, newest_state, overrides, run, write_rows

STEPS = ["buffer.passes=1", "buffer.minibatches=4", "trainer.max_epochs=3"]


@pytest.fixture
def chosen(tmp_path: Path) -> list[str]:
    """Three epochs of four optimiser steps."""
    return overrides(write_rows(tmp_path), "lstm", "ppo", *STEPS)


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run of one epoch and its overrides; not to be written into."""
    folder = tmp_path_factory.mktemp("one_epoch")
    chosen = overrides(write_rows(folder), "lstm", "ppo", *STEPS, "trainer.max_epochs=1")
    run(folder / "run", chosen)
    return folder / "run", chosen


@pytest.fixture
def finished(one_epoch: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """The same, to be written into."""
    shutil.copytree(one_epoch[0], tmp_path / "run")
    return tmp_path / "run"


def saved(folder: Path) -> list[int]:
    """The steps of a run's checkpoints."""
    assert all(one.name.startswith("step-") for one in (folder / "checkpoints").iterdir())
    return [int(read_manifest(one)["step"]) for one in listed(folder)]


# When


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ([], [4, 8, 12]),
        (["checkpoint.every_epochs=2"], [8, 12]),  # the end has one whatever the interval
        (["checkpoint.every_epochs=null"], [12]),
        (["checkpoint.every_epochs=null", "checkpoint.every_steps=3"], [3, 6, 9, 12]),
        (["checkpoint.every_epochs=null", "checkpoint.every_steps=4"], [4, 8, 12]),
        (["checkpoint.every_steps=2"], [2, 4, 6, 8, 10, 12]),  # none twice where a step ends an epoch
        (["checkpoint.every_epochs=null", "checkpoint.every_minutes=1"], [3, 6, 9, 12]),  # 20 seconds a step
        (["checkpoint.every_epochs=null", "checkpoint.every_minutes=1.5"], [5, 10, 12]),
        (["checkpoint.every_minutes=1"], [3, 4, 7, 8, 11, 12]),  # the minutes count from the last checkpoint
        (["checkpoint.every_epochs=null", "trainer.max_steps=6"], [6]),
    ],
)
def test_a_checkpoint_where_it_is_time(
    options: list[str], steps: list[int], chosen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def twenty_seconds(module: TuningModule, batch: Any, batch_idx: int) -> None:
        now[0] += 20

    monkeypatch.setattr(saver, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(TuningModule, "on_train_batch_start", twenty_seconds)
    run(tmp_path / "run", [*chosen, "checkpoint.keep=99", *options])
    assert saved(tmp_path / "run") == steps


def test_never_between_the_micro_batches_of_a_step(chosen: list[str], tmp_path: Path) -> None:
    """Two a step. Each state stands at a multiple of two; at the start, too, nothing is saved."""
    accumulated = ["buffer.minibatches=8", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=2"]
    run(tmp_path / "run", [*chosen, *accumulated, "checkpoint.every_steps=1", "checkpoint.keep=99"])
    assert saved(tmp_path / "run") == [1, 2, 3, 4, 5, 6, 7, 8]
    states = [
        torch.load(one / "state.ckpt", weights_only=True)["feedtune"]["ranks"][0]["loader"]
        for one in listed(tmp_path / "run")
    ]
    assert [state["yielded"] for state in states] == [2, 4, 6, 8] * 2


def test_a_run_that_goes_on_saves_no_micro_batch_either(chosen: list[str], tmp_path: Path) -> None:
    accumulated = ["buffer.minibatches=8", "trainer.accumulate_grad_batches=2", "checkpoint.every_steps=1"]
    folder = tmp_path / "run"
    run(folder, [*chosen, *accumulated, "trainer.max_steps=2"])
    before = listed(folder)
    longer = compose_config([*chosen, *accumulated, "trainer.max_steps=3"])
    train(longer, folder, newest_state(folder))
    assert [one.name for one in listed(folder)] == [before[-1].name, "step-00000003"]


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("checkpoint.every_epochs=0", r"^checkpoint\.every_epochs: expected at least 1, got 0$"),
        ("checkpoint.every_steps=-1", r"^checkpoint\.every_steps: expected at least 1, got -1$"),
        ("checkpoint.every_minutes=0", r"^checkpoint\.every_minutes: expected a number above 0, got 0$"),
        ("checkpoint.every_minutes=nan", r"^checkpoint\.every_minutes: expected a number above 0, got nan$"),
        ("checkpoint.keep=0", r"^checkpoint\.keep: expected at least 1, got 0$"),
        ("checkpoint.keep=null", r"^checkpoint\.keep: expected a whole number, got None$"),
        ("checkpoint.best={mode: max}", r"^checkpoint\.best\.metric: not given"),
        ("checkpoint.best={metric: a, mode: most}", r"^checkpoint\.best\.mode: expected one of max, min"),
        ("checkpoint.best={metric: rollout/rewad}", r"no 'rollout/rewad'\. Did you mean 'rollout/reward'\?"),
        ("checkpoint.best={metric: eval/reward}", r"while training only with evaluation\.every="),
    ],
)
def test_options_that_cannot_be_meant(option: str, says: str, chosen: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        run(tmp_path / "run", [*chosen, option])


# Which stay


def test_the_newest_stay(chosen: list[str], tmp_path: Path) -> None:
    run(tmp_path / "one", [*chosen, "checkpoint.keep=1"])
    run(tmp_path / "two", [*chosen, "checkpoint.every_steps=1"])  # two by default
    assert saved(tmp_path / "one") == [12]
    assert saved(tmp_path / "two") == [11, 12]


def test_the_best_stays_beside_them(chosen: list[str], tmp_path: Path) -> None:
    """Of the rows of metrics.csv, the one of the highest (or lowest) reward has its checkpoint still."""
    for mode, pick in {"max": max, "min": min}.items():
        folder = tmp_path / mode
        best = f"checkpoint.best={{metric: rollout/reward, mode: {mode}}}"
        run(folder, [*chosen, best, "checkpoint.keep=1", "trainer.max_epochs=5", "checkpoint.every_steps=2"])
        with (folder / "metrics.csv").open(newline="") as file:
            rewards = [float(row["rollout/reward"]) for row in csv.DictReader(file)]
        steps = sorted({4 * (1 + rewards.index(pick(rewards))), 20})
        assert saved(folder) == steps
        row = read_manifest(listed(folder)[0])
        assert row["metrics"]["rollout/reward"] == rewards[row["epoch"] - 1]


def write(folder: Path, step: int, value: float | None) -> Path:
    draft = Draft(folder)
    draft.add("state.ckpt", b"state")
    metrics = {} if value is None else {"eval/reward": value}
    return draft.publish(step_name(step), {"step": step, "metrics": metrics})


@pytest.mark.parametrize(
    ("keep", "mode", "values", "stay"),
    [
        (1, None, [0.1, 0.9, 0.2], [3]),
        (2, None, [0.1, 0.9, 0.2], [2, 3]),
        (1, "max", [0.1, 0.9, 0.2], [2, 3]),
        (1, "min", [0.1, 0.9, 0.2], [1, 3]),
        (1, "max", [0.5, 0.5, 0.5], [1, 3]),  # the first to get there
        (1, "max", [0.1, None, None], [1, 3]),  # not measured with every checkpoint
        (1, "max", [None, None, None], [3]),
        (2, "max", [0.9, 0.1, 0.2], [1, 2, 3]),
        (9, "max", [0.9, 0.1, 0.2], [1, 2, 3]),
    ],
)
def test_which_stay(
    keep: int, mode: str | None, values: list[float | None], stay: list[int], tmp_path: Path
) -> None:
    folders = [write(tmp_path, step, value) for step, value in enumerate(values, 1)]
    best = None if mode is None else {"metric": "eval/reward", "mode": mode}
    SaveCheckpoints(keep=keep, best=best)._remove_others(tmp_path, folders[-1])
    assert listed(tmp_path) == [folders[step - 1] for step in stay]


def test_what_lies_ahead_of_the_new_one_goes(tmp_path: Path) -> None:
    """Steps 8 and 12 were damaged, so the run went on from 4: what it saves at 6 is the newest it has."""
    folders = [write(tmp_path, step, None) for step in (4, 8, 12)]
    new = write(tmp_path, 6, None)
    SaveCheckpoints(keep=2)._remove_others(tmp_path, new)
    assert listed(tmp_path) == [folders[0], new]


def test_nothing_is_removed_before_the_new_one_is_there(
    chosen: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[list[int]] = []
    remove = saver.remove

    def watched(folder: Path) -> None:
        there.append(saved(tmp_path / "run"))
        assert all(verified(one) for one in listed(tmp_path / "run"))
        remove(folder)

    monkeypatch.setattr(saver, "remove", watched)
    run(tmp_path / "run", [*chosen, "checkpoint.keep=1"])
    assert there == [[4, 8], [8, 12]]


# What is in them


def test_a_manifest_says_where_the_run_stood(chosen: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, [*chosen, "checkpoint.every_steps=3", "checkpoint.keep=99"])
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]
    found = {m["step"]: m for m in map(verified, listed(folder))}
    assert sorted(found) == [3, 4, 6, 8, 9, 12]
    assert [found[step]["epoch"] for step in sorted(found)] == [0, 1, 1, 2, 2, 3]
    assert [found[step]["ends_epoch"] for step in sorted(found)] == [False, True, False, True, False, True]
    assert found[6]["metrics"] == {}  # nothing is known yet of the epoch that it is of
    del rows[1]["epoch"]
    measured = found[8]["metrics"]
    assert {name: value for name, value in measured.items() if value is not None} == {
        name: value for name, value in rows[1].items() if value == value
    }
    assert found[8]["run"]["data"]["rows"] > 0
    assert found[8]["run"]["config"]["backbone.hidden_size"] == "16"
    assert found[8]["run"]["versions"].keys() >= {"feedtune", "torch", "lightning", "transformers"}


def test_a_checkpoint_brings_its_tokenizer(one_epoch: tuple[Path, list[str]]) -> None:
    own = Codec.load(newest_state(one_epoch[0]).parent / "tokenizer")
    exported = Codec.load(one_epoch[0] / "export")
    assert own.tokenizer.get_vocab() == exported.tokenizer.get_vocab()
    assert own.eos_ids == exported.eos_ids


class Bomb:
    """What it is unpickled to is what its maker wants to run."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


def forge(state: Path, content: bytes) -> None:
    """Another state in a checkpoint whose manifest is right for it."""
    draft = Draft(state.parents[2])
    draft.add("state.ckpt", content)
    for file in (state.parent / "tokenizer").iterdir():
        draft.add(f"tokenizer/{file.name}", file.read_bytes())
    facts = read_manifest(state.parent)
    draft.publish(step_name(99), {name: facts[name] for name in ("run", "epoch", "metrics")} | {"step": 99})


@pytest.mark.parametrize("form", ["pickle", "torch", "legacy"])
def test_a_pickle_bomb_does_nothing(
    form: str, one_epoch: tuple[Path, list[str]], finished: Path, tmp_path: Path
) -> None:
    """With a manifest that is right, so that only `weights_only` stands in its way. First: it is one."""
    canary = tmp_path / "canary"
    bomb = tmp_path / "bomb"
    if form == "pickle":
        bomb.write_bytes(pickle.dumps(Bomb(canary)))
        pickle.loads(bomb.read_bytes())
    else:
        torch.save({"state_dict": Bomb(canary)}, bomb, _use_new_zipfile_serialization=form == "torch")
        torch.load(bomb, weights_only=False)
    canary.rmdir()  # it went off
    forge(newest_state(finished), bomb.read_bytes())
    state = newest_state(finished)
    assert state.parent.name == "step-00000099"
    with pytest.raises(UserError, match=r"step-00000099/state\.ckpt: not a checkpoint of feedtune"):
        train(compose_config(one_epoch[1]), finished, state)
    assert not canary.exists()


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {}])
def test_a_state_that_is_none_is_refused(
    content: Any, one_epoch: tuple[Path, list[str]], finished: Path, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "other")
    forge(newest_state(finished), (tmp_path / "other").read_bytes())
    with pytest.raises(UserError, match="not a checkpoint of feedtune: it lacks parts of a run's state"):
        train(compose_config(one_epoch[1]), finished, newest_state(finished))


# No room

FULL = """
import resource, sys
from feedtune.checkpoints.saver import SaveCheckpoints
from feedtune.cli import main
save = SaveCheckpoints.save
def full(self, trainer, module, name=None):
    if trainer.global_step == 6:  # a file of 1 kB fits, the state does not
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    return save(self, trainer, module, name)
SaveCheckpoints.save = full
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_disk_ends_the_run_cleanly_and_it_can_go_on(chosen: list[str], tmp_path: Path) -> None:
    run(tmp_path / "whole", chosen)
    folder = tmp_path / "run"
    options = ["checkpoint.every_steps=2", "checkpoint.keep=1", "report=false", f"hydra.run.dir={folder}"]
    done = subprocess.run(
        [sys.executable, "-c", FULL, "train", *chosen, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    [line] = [one for one in done.stderr.splitlines() if one.startswith("feedtune: ")]
    assert line.startswith(
        f"feedtune: {folder / 'checkpoints'}: cannot be written: File too large; it takes "
    )
    assert line.endswith(f"`ulimit -f`. step-00000004 is as it was: go on with feedtune resume {folder}")
    assert "Traceback" not in done.stderr
    assert saved(folder) == [4]
    train(compose_config([*chosen, *options[:2]]), folder, newest_state(folder))
    assert fingerprint(folder) == fingerprint(tmp_path / "whole")
