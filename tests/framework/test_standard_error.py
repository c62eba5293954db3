"""A log that cannot be written, as on a full disk, costs nobody a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from feedtune.callbacks.files import read_metrics
from feedtune.standard_error import Unbreakable, unbreakable
from small_runs import overrides, write_rows

FULL = Path("/dev/full")  # of Linux


def feedtune(log: Path, *arguments: str) -> int:
    """The exit code of a command with its standard error in a file."""
    command = [sys.executable, "-m", "feedtune.cli", *arguments]
    with log.open("a") as stderr:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=stderr, timeout=240, check=False)
    return done.returncode


def test_a_run_whose_log_is_on_a_full_disk_goes_on_to_its_end(tmp_path: Path) -> None:
    chosen = overrides(
        write_rows(tmp_path), "ngram", "reinforce", "callbacks=default", "trainer.max_epochs=3"
    )
    feedtune(FULL, "train", *chosen, "report=false", f"hydra.run.dir={tmp_path / 'run'}")
    assert len(read_metrics(tmp_path / "run" / "metrics.csv", 9)) == 3
    assert (tmp_path / "run" / "export" / "feedtune.json").is_file()
    assert not (tmp_path / "run" / "error.txt").exists()


def test_on_a_full_disk_with_the_log_on_it_there_are_words(tmp_path: Path) -> None:
    """What follows the words may be lost; files of the run's own are as the last checkpoint left them."""
    log = tmp_path / "log.txt"
    chosen = overrides(
        write_rows(tmp_path), "ngram", "reinforce", "callbacks=default", "trainer.max_epochs=3"
    )
    fault = ["debug=fault", "callbacks.fault.kind=full", "callbacks.fault.step=2"]
    code = feedtune(log, "train", *chosen, *fault, "report=false", f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 2
    assert "cannot be written" in log.read_text()


def test_all_else_is_the_streams_own(tmp_path: Path) -> None:
    with (tmp_path / "log.txt").open("w") as file:
        stream = Unbreakable(file)
        assert stream.fileno() == file.fileno()
        assert not stream.isatty()
        print("one", file=stream)
        stream.writelines(["two\n", "three\n"])
    assert (tmp_path / "log.txt").read_text() == "one\ntwo\nthree\n"


def test_it_is_only_inside(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stderr
    with unbreakable():
        print("heard", file=sys.stderr)
        assert sys.stderr is not before
    assert sys.stderr is before
    assert capsys.readouterr().err == "heard\n"
