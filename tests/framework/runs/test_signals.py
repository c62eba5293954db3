"""SIGTERM and Ctrl-C: real signals to real processes, wherever they are."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kills.cases import CASES, TWO_PROCESSES, Case
from kills.layout import EVERY_EPOCH, has_checkpoint, state_of
from kills.nursery import Life, Nursery
from kills.stories import live

CASE = replace(CASES["ppo on lstm"], saved=EVERY_EPOCH)
"""Nothing but a stop saves a step within an epoch."""

BOTH = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


@pytest.fixture(scope="module")
def whole(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How it ends when nobody stops it."""
    return live(nursery, CASE, tmp_path_factory.mktemp("whole")).ending()


def last_line(life: Life) -> str:
    return life.said().splitlines()[-1]


def stopped(nursery: Nursery, case: Case, folder: Path, **kill: Any) -> Life:
    return nursery.run(*case.arguments(folder), log=folder / "log.txt", kill=kill, world=case.world)


def resumed(nursery: Nursery, case: Case, folder: Path) -> dict[str, Any]:
    """How a stopped run ends."""
    story = live(nursery, case, folder)  # there is a run already, so that it is resumed
    assert len(story.chapters) == story.resumes == 1
    return story.ending()


PLACES = [
    ("begins", 4, 3),  # 3 minibatches an epoch, in steps of 2 and 1: the step that is on is finished
    ("stepped", 3, 3),  # between the micro-batches of that step
    ("begins", 2, 2),  # the last of the first epoch: its row is written first
    ("rows", 0, 2),  # while the epoch's end is on
]


def _places_and_signals() -> Iterator[Any]:
    """Each place with one of the signals by default, and with the other one as well under `-m slow`."""
    for at, place in enumerate(PLACES):
        for which, one in enumerate(BOTH):
            yield pytest.param(*place, *one, marks=[] if which == at % 2 else pytest.mark.slow)


@pytest.mark.parametrize(("place", "n", "step", "number", "code"), list(_places_and_signals()))
def test_a_run_that_is_told_to_stop_finishes_its_step(
    nursery: Nursery,
    tmp_path: Path,
    whole: dict[str, Any],
    place: str,
    n: int,
    step: int,
    number: int,
    code: int,
) -> None:
    folder = tmp_path / "stopped"
    life = stopped(nursery, CASE, folder, place=place, n=n, number=number)
    assert life.codes == (code,), life.said()
    name = signal.Signals(number).name
    assert last_line(life) == (
        f"feedtune: stopped by {name} after optimiser step {step}; "
        f"go on with: feedtune resume {folder / 'run'}"
    )
    assert "Traceback" not in life.said()
    assert state_of(folder / "run")["global_step"] == step
    assert resumed(nursery, CASE, folder) == whole


def test_the_last_epochs_end_is_a_good_place_too(nursery: Nursery, tmp_path: Path) -> None:
    """All is trained and saved; what is missing is the export."""
    case = CASES["ppo on lstm"]
    whole = live(nursery, case, tmp_path / "whole")
    folder = tmp_path / "stopped"
    life = stopped(nursery, case, folder, place="begins", n=whole.batches - 1, number=signal.SIGTERM)
    assert life.code == 143
    assert "after optimiser step 4; go on with" in last_line(life)
    story = live(nursery, case, folder)
    assert [chapter.batches for chapter in story.chapters] == [[]]
    assert story.ending() == whole.ending()


def test_the_command_that_is_named_goes_on_as_it_stands(nursery: Nursery, tmp_path: Path) -> None:
    """With --trust where the config names code of the user's, without which it would be refused."""
    case = replace(CASE, options=(*CASE.options, "reward=function", "reward.path=kills.noisy:score"))
    life = stopped(nursery, case, tmp_path, place="begins", n=4, number=signal.SIGTERM)
    _, _, command = last_line(life).partition("; go on with: ")
    assert command == f"feedtune resume {tmp_path / 'run'} --trust"
    assert nursery.run(*shlex.split(command)[1:], log=tmp_path / "log.txt").code == 0
    assert nursery.run("resume", str(tmp_path / "run"), log=tmp_path / "log.txt").code == 2


def test_a_second_signal_ends_it_at_once(nursery: Nursery, tmp_path: Path) -> None:
    """Both come while the second rollout is scored: its step is not made."""
    case = Case(
        "lstm", "ppo", ("reward=function", "reward.path=kills.signalling:twice_in_the_second_rollout")
    )
    life = nursery.run(*case.arguments(tmp_path), log=tmp_path / "log.txt")
    assert life.codes == (143,)
    assert last_line(life).startswith("feedtune: SIGTERM: the run ends after this optimiser step")
    assert "stopped by" not in life.said()
    assert state_of(tmp_path / "run")["global_step"] == 4  # one rollout has 4: no checkpoint is written


def test_a_run_that_keeps_no_checkpoints_says_so(nursery: Nursery, tmp_path: Path) -> None:
    case = Case("lstm", "ppo", ("trainer.enable_checkpointing=false",))
    life = stopped(nursery, case, tmp_path, place="begins", n=2, number=signal.SIGTERM)
    assert life.codes == (143,)
    assert last_line(life) == (
        "feedtune: stopped by SIGTERM after optimiser step 3; "
        "nothing was saved, so there is nothing to go on from"
    )
    assert not has_checkpoint(tmp_path / "run")


@pytest.mark.parametrize("moments", [4, pytest.param(16, marks=pytest.mark.slow)])
def test_at_any_moment_it_ends_with_the_code_and_no_traceback(
    nursery: Nursery, tmp_path: Path, moments: int
) -> None:
    """Before training, while it is on, and after it: a signal from outside, later and later."""
    case = CASES["ppo on lstm"]
    whole = live(nursery, case, tmp_path / "whole")
    expected, seconds = whole.ending(), whole.chapters[0].life.seconds
    codes = set()
    for part in range(1, moments + 1):
        number, code = BOTH[part % 2]
        folder = tmp_path / f"part{part}"
        life = nursery.run(
            *case.arguments(folder), log=folder / "log.txt", after=seconds * part / moments, number=number
        )
        codes.add(life.code)
        assert life.code in (code, 0), life.said()
        assert "Traceback" not in life.said()
        if life.code == code:
            assert last_line(life).startswith(("feedtune: stopped by", "feedtune: interrupted")), life.said()
            assert live(nursery, case, folder).ending() == expected
    assert codes >= {130, 143}


def test_several_processes_agree_on_the_step(nursery: Nursery, tmp_path: Path) -> None:
    """The second hears the signal; both stop after the same step, and one of them speaks."""
    case = TWO_PROCESSES
    whole = live(nursery, case, tmp_path / "whole").ending()
    folder = tmp_path / "stopped"
    life = stopped(nursery, case, folder, place="begins", n=2, number=signal.SIGTERM, rank=1)
    # Lightning would kill the first process where one that it has started ends with an error.
    assert life.codes == (143, 0), life.said()
    assert life.said().count("stopped by SIGTERM after optimiser step 3") == 1
    assert state_of(folder / "run")["global_step"] == 3
    assert resumed(nursery, case, folder) == whole


@pytest.mark.slow
def test_from_a_shell(nursery: Nursery, tmp_path: Path) -> None:
    """The command in processes of their own, with other hashes of texts and the selfcheck."""
    case = Case("lstm", "ppo", ("trainer.max_epochs=40",))
    expected = live(nursery, case, tmp_path / "whole").ending()
    folder = tmp_path / "stopped"
    training = _started(case.arguments(folder), folder / "log.txt", hashes="1")
    patience = time.monotonic() + 100
    while not has_checkpoint(folder / "run") and time.monotonic() < patience:
        time.sleep(0.01)
    training.send_signal(signal.SIGTERM)
    assert training.wait(timeout=100) == 143, (folder / "log.txt").read_text()
    step = state_of(folder / "run")["global_step"]
    assert (
        (folder / "log.txt")
        .read_text()
        .splitlines()[-1]
        .startswith(f"feedtune: stopped by SIGTERM after optimiser step {step}; go on with")
    )
    resuming = _started(["resume", str(folder / "run")], folder / "log.txt", hashes="2")
    assert resuming.wait(timeout=200) == 0, (folder / "log.txt").read_text()
    story = live(nursery, case, folder)  # there is nothing left to do
    assert [chapter.batches for chapter in story.chapters] == [[]]
    assert story.ending() == expected


def _started(arguments: list[str], log: Path, hashes: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": hashes}
    with log.open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "feedtune.cli", *arguments], stdout=said, stderr=said, env=environment
        )


@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 2])
def test_processes_that_lightning_has_started_end_as_well(tmp_path: Path, signals: int) -> None:
    """The first process is told to stop, and only that one; a moment later perhaps once more."""
    case = Case("lstm", "ppo", ("trainer.max_epochs=5000",), world=2)
    run, log = tmp_path / "run", tmp_path / "log.txt"
    training = _started(case.arguments(tmp_path), log, hashes="0")
    patience = time.monotonic() + 100
    while not has_checkpoint(run) and time.monotonic() < patience:
        time.sleep(0.01)
    assert len(_processes_of(run)) == 2
    for _ in range(signals):
        training.send_signal(signal.SIGTERM)
        time.sleep(0.001)
    assert training.wait(timeout=60) == 143, log.read_text()
    assert "Traceback" not in log.read_text()
    while _processes_of(run) and time.monotonic() < patience:
        time.sleep(0.05)
    assert _processes_of(run) == []


def _processes_of(run: Path) -> list[str]:
    """The processes that have the run folder on their command line."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            lines.append(file.read_bytes().decode(errors="replace"))
    return [line for line in lines if f"hydra.run.dir={run}" in line.replace('"', "")]
