"""debug=fault: what a run looks like that is broken on purpose, and what the next command does."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from feedtune.callbacks import Fault
from feedtune.callbacks.files import read_metrics
from feedtune.checkpoints import listed, newest
from feedtune.config.compose import compose_config
from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.rewards import RewardCalls, SourceFailure, guarded
from feedtune.runs.training import train
from feedtune_plugins.rewards.length import Length
from feedtune_plugins.rewards.sum import Sum
from small_runs import fingerprint, overrides, run, write_rows


def chosen(folder: Path, kind: str, *more: str) -> list[str]:
    """Three epochs of one step each, broken at the second."""
    base = overrides(write_rows(folder), "lstm", "reinforce", "trainer.max_epochs=3", "optimizer.lr=0.01")
    return [*base, "debug=fault", f"callbacks.fault.kind={kind}", "callbacks.fault.step=2", *more]


def epochs(folder: Path) -> list[int]:
    return [int(row["epoch"]) for row in read_metrics(folder / "metrics.csv", 99)]


def test_kill_and_resume_end_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """A process of its own, for it is the process that dies; the resumed run is left alone."""
    command = ["train", *chosen(tmp_path, "kill"), "report=false", f"hydra.run.dir={tmp_path / 'run'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    line = [sys.executable, "-m", "feedtune.cli", *command]
    died = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert [folder.name for folder in listed(tmp_path / "run")] == ["step-00000001"]
    train(compose_config(chosen(tmp_path, "kill")), tmp_path / "run", newest(tmp_path / "run"))
    whole = [one for one in chosen(tmp_path, "kill") if "fault" not in one]
    run(tmp_path / "whole", whole)
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")


def test_nan_is_found_in_its_step(tmp_path: Path) -> None:
    said = r"the gradient of \S+ is not finite at optimiser step 2 of epoch 2\."
    with pytest.raises(UserError, match=said):
        run(tmp_path / "run", chosen(tmp_path, "nonfinite"))
    assert epochs(tmp_path / "run") == [0]


def test_a_full_disk_ends_the_run_with_words_and_leaves_what_was_there(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(UserError, match=r"cannot be written: File too large"):
        run(tmp_path / "run", chosen(tmp_path, "full"))
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before  # there is room again
    checkpoint = newest(tmp_path / "run")
    assert checkpoint is not None
    assert checkpoint.parent.name == "step-00000001"
    train(compose_config(chosen(tmp_path, "full")), tmp_path / "run", checkpoint)
    assert epochs(tmp_path / "run") == [0, 1, 2]


def test_a_reward_that_fails_is_the_policys_of_calls(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reward 'Length' failed on 8 samples .*a fault on purpose"):
        run(tmp_path / "run", chosen(tmp_path, "raise"))
    assert epochs(tmp_path / "run") == [0, 1]
    run(tmp_path / "again", chosen(tmp_path, "raise", "reward_calls.attempts=2", "reward_calls.wait=0.0"))
    rows = read_metrics(tmp_path / "again" / "metrics.csv", 9)
    assert [row["reward/failures"] for row in rows] == ["0.0", "0.0", "1.0"]


def test_every_source_of_a_sum_is_held() -> None:
    fault = Fault(kind="raise")
    reward = fault._held(guarded(Sum(sources={"a": Length(), "b": Length()}), RewardCalls()))
    samples = [Sample("Hi", "a b c")]
    first = reward(samples).total
    fault.failing = True
    with pytest.raises(SourceFailure, match="a fault on purpose"):
        reward(samples)
    assert reward(samples).total == first  # once


def test_a_step_that_never_comes_is_said(tmp_path: Path, capsys: Any) -> None:
    run(tmp_path / "run", chosen(tmp_path, "nonfinite", "callbacks.fault.step=9"))
    said = " ".join(capsys.readouterr().err.split())
    assert "callbacks.fault: nothing broke: the run had 3 optimiser steps, and it ended before step 9" in said


def test_a_reward_that_nobody_asks_for_is_said(tmp_path: Path, capsys: Any) -> None:
    base = overrides(write_rows(tmp_path), "lstm", "sft", "debug=fault", "callbacks.fault.kind=raise")
    run(tmp_path / "run", base)
    said = " ".join(capsys.readouterr().err.split())
    assert "nothing broke: the run had 6 optimiser steps, and no reward was asked for after step 2" in said


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "callbacks.fault.kind=kil",
            r"fault\.kind: expected one of kill, nonfinite, full, raise, got 'kil'\. Did",
        ),
        ("callbacks.fault.kind=nan", r"one of kill, .*, got nan\. Did you mean 'nonfinite'\?"),
        ("callbacks.fault.step=0", r"callbacks\.fault\.step: expected at least 1, got 0"),
        ("callbacks.fault.step=two", r"callbacks\.fault\.step: expected a whole number, got 'two'"),
    ],
)
def test_mistakes_are_named(typed: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", chosen(tmp_path, "nonfinite", typed))
