"""The W&B run of a run folder: where it goes, under which id, with which options; read back from disk."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import pytest
import wandb

from feedtune.checkpoints import newest
from feedtune.config.check import check
from feedtune.config.compose import compose_config
from feedtune.errors import UserError
from feedtune.runs.assembly import GROUPS, TOP_LEVEL
from feedtune.runs.training import train
from feedtune.tracking import loggers
from feedtune.tracking.telling import tracked
from feedtune.tracking.wandb_run import RunWandb
from kills.cases import Case
from kills.nursery import Nursery
from kills.stories import live
from small_runs import overrides, run, write_rows
from wandb_files import CANARY, metrics_of, offline_run, offline_runs

SMALLEST = ("logger=wandb", "trainer.max_epochs=1")


def logger_in(folder: Path, **options: Any) -> RunWandb:
    logger = loggers.wandb_logger(folder=str(folder), **{"mode": "offline", **options})
    assert isinstance(logger, RunWandb)
    return logger


# Where it goes


def test_two_runs_in_one_process_are_two(no_account: None, tmp_path: Path) -> None:
    """Without an account, each in its own folder, with the values of its own metrics.csv."""
    chosen = overrides(write_rows(tmp_path), "ngram", "sft", *SMALLEST)
    ids = set()
    for name in ("one", "two"):
        run(tmp_path / name, chosen)
        assert wandb.run is None
        found = offline_run(tmp_path / name)
        assert found.metrics() == metrics_of(tmp_path / name)
        assert not any(key.startswith(("samples", "histogram")) for row in found.history for key in row)
        assert found.run["project"] == "feedtune"
        assert found.artifacts("model-") == []  # nobody asked for it
        ids.add(found.run["run_id"])
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("mode", "key", "netrc", "given", "expected"),
    [
        (None, None, None, None, "offline"),  # no account: what would be asked for is not there
        (None, "secret", None, None, "online"),
        (None, None, "machine api.wandb.ai login user password secret", None, "online"),
        (None, None, "machine example.com login user password secret", None, "offline"),
        ("offline", "secret", None, None, "offline"),
        ("disabled", "secret", None, None, "disabled"),
        ("online", None, None, None, "online"),
        (None, "secret", None, "offline", "offline"),  # said in so many words
        ("offline", None, None, "online", "online"),
    ],
)
def test_offline_unless_there_is_an_account(
    mode: str | None,
    key: str | None,
    netrc: str | None,
    given: loggers.Mode | None,
    expected: str,
    no_account: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"WANDB_MODE": mode, "WANDB_API_KEY": key}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    if netrc is not None:
        (tmp_path / "netrc").write_text(netrc)
    asked: dict[str, Any] = {}
    monkeypatch.setattr(wandb, "init", lambda **options: asked.update(options) or wandb.Run)
    logger = logger_in(tmp_path / "run", mode=given)
    with pytest.raises(AttributeError):  # that is no run
        logger.experiment.never  # noqa: B018
    assert asked["mode"] == expected
    assert asked["dir"] == str(tmp_path / "run")
    assert asked["resume"] == "allow"
    assert asked["id"] == (tmp_path / "run" / "wandb_id.txt").read_text().strip()
    assert (tmp_path / "run").is_dir()


def test_a_disabled_run_leaves_nothing(no_account: None, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run(tmp_path / "run", overrides(write_rows(tmp_path), "ngram", "ppo", *SMALLEST))
    assert (tmp_path / "run" / "metrics.csv").is_file()
    assert not (tmp_path / "run" / "wandb").exists()


def test_a_server_that_refuses_is_named_in_one_line(
    no_account: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short-but-long-enough")
    with pytest.raises(
        UserError, match=r"^logger=wandb: .*API key must have 40.*; logger.mode=offline"
    ) as said:
        run(tmp_path / "run", overrides(write_rows(tmp_path), "ngram", "sft", *SMALLEST))
    assert "short-but" not in str(said.value)


# Options


def test_the_environment_of_wandb_counts(
    no_account: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the option is null; and the command line is noted without secrets."""
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setattr(sys, "argv", ["mine.py", f"--token={CANARY}"])
    logger = logger_in(tmp_path / "run")
    logger.log_metrics({"x": 1.0}, 0)
    assert sys.argv[1] == f"--token={CANARY}"
    logger.finalize("success")
    logger.close()
    found = offline_run(tmp_path / "run")
    assert found.run["project"] == "theirs"
    assert found.of("environment")[0]["args"] == ["--token=<HF_TOKEN>"]
    assert not any(CANARY.encode() in p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file())


def test_fewer_tables_and_no_histograms(no_account: None, tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "ngram", "ppo", "logger=wandb", "trainer.max_epochs=3")
    run(tmp_path / "run", [*chosen, "logger.samples_every=2", "logger.histograms=false"])
    rows = offline_run(tmp_path / "run").history
    assert [[key for key in row if key in ("samples.path", "histogram/reward.bins")] for row in rows] == [
        [],
        ["samples.path"],
        [],
    ]


@pytest.mark.parametrize("console", [True, False])
def test_what_the_terminal_shows_goes_there_if_asked_for(
    console: bool, no_account: None, tmp_path: Path
) -> None:
    logger = logger_in(tmp_path, console=console)
    logger.log_metrics({"x": 1.0}, 0)
    print("said aloud")
    logger.finalize("success")
    logger.close()
    found = offline_run(tmp_path)
    assert ("said aloud" in str(found.of("output") + found.of("output_raw"))) is console


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples_every": 0}, r"^logger\.samples_every: expected at least 1, got 0$"),
        (
            {"mode": "ofline"},
            r"^logger\.mode: expected one of online, offline, disabled, got 'ofline'\.",
        ),
        ({"mode": "disabled", "log_model": True}, r"^logger\.log_model: with logger\.mode=disabled nothing"),
    ],
)
def test_refused(options: dict[str, Any], message: str, no_account: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        logger_in(tmp_path, **options)


def test_a_mode_of_the_environment_that_is_none(
    no_account: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(UserError, match=r"^WANDB_MODE: expected one of online, .*, got 'ofline'$"):
        logger_in(tmp_path, mode=None)


@pytest.mark.parametrize(
    "typed",
    [
        *("tags=one", "samples_every=often", "log_model=all", "histograms=3", "console=wrap", "mode=ofline"),
        *("group=[a]", "project=[a]", "entity=[a]", "name=[a]", "job_type=[a]", "notes=[a]"),
    ],
)
def test_types_are_checked_with_the_key(typed: str) -> None:
    with pytest.raises(UserError, match=rf"^logger\.{typed.partition('=')[0]}: expected"):
        check(compose_config(["logger=wandb", f"logger.{typed}", "run_dir=x"]), TOP_LEVEL, GROUPS)


# A run that ends badly


def test_a_run_that_fails_has_failed_at_wandb_too(
    no_account: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it fails after training, as the export does on a full disk."""
    monkeypatch.setattr("feedtune.runs.training.save", _full_disk)
    with pytest.raises(UserError, match="cannot be written"):
        run(tmp_path / "run", overrides(write_rows(tmp_path), "ngram", "sft", *SMALLEST))
    [end] = offline_run(tmp_path / "run").of("exit")
    assert end["exit_code"] == 1
    assert wandb.run is None


def _full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_loggers_end_is_said_once(no_account: None, tmp_path: Path) -> None:
    """An error in training reaches the logger by Lightning, and then the block around the run."""
    trainer = lightning.Trainer(logger=(logger := logger_in(tmp_path)), accelerator="cpu", barebones=False)
    trainer.strategy.setup_environment()
    config = compose_config(overrides(write_rows(tmp_path), "ngram", "sft"))
    with pytest.raises(ZeroDivisionError), tracked(trainer, config, tmp_path):
        _fail(logger)
    assert [end["exit_code"] for end in offline_run(tmp_path).of("exit")] == [1]


def _fail(logger: RunWandb) -> None:
    logger.finalize("failed")
    raise ZeroDivisionError


# A run that was stopped is one run at W&B


def test_a_resumed_run_is_the_same_run_with_all_of_its_rows(nursery: Nursery, tmp_path: Path) -> None:
    """Killed in the fourth epoch with a checkpoint of the second: the third is repeated."""
    case = Case(
        "lstm",
        "ppo",
        ("logger=wandb", "logger.mode=offline", "trainer.max_epochs=5", "buffer.passes=1"),
        saved="checkpoint.every_epochs=2",
    )
    folder, run = tmp_path / "story", tmp_path / "story" / "run"
    killed = nursery.run(*case.arguments(folder), log=folder / "log.txt", kill={"place": "begins", "n": 7})
    assert killed.killed, killed.said()
    next_second()
    story = live(nursery, case, folder)
    assert story.chapters[0].began == 4  # two steps an epoch
    known = (run / "wandb_id.txt").read_text().strip()
    first, second = offline_runs(run, ended=False)
    assert first.folder.name.endswith(f"-{known}")  # of which the kill has left little
    assert second.run["run_id"] == known
    assert [row["epoch"] for row in second.history] == [0, 1, 2, 3, 4]
    for name in ("_step", "trainer/global_step"):
        assert [row[name] for row in second.history] == [1, 3, 5, 7, 9]
    assert second.metrics() == metrics_of(run)
    assert [row["progress/updates"] for row in second.history] == [2, 4, 6, 8, 10]
    tokens = [row["progress/tokens"] for row in second.history]
    lengths = [row["rollout/length"] for row in second.history]
    assert tokens == [8 * sum(lengths[: n + 1]) for n in range(5)]
    for epoch, row in enumerate(second.history):  # also of the epochs before, from samples.jsonl
        assert {line[0] for line in second.table(row)["data"]} == {epoch}


def next_second() -> None:
    """W&B names its folders by the second."""
    began = time.time()
    while time.time() < int(began) + 1.1:
        time.sleep(0.05)


def test_a_run_that_goes_on_within_an_epoch_tells_all_of_it(no_account: None, tmp_path: Path) -> None:
    """Stopped after two of the second epoch's four steps: its rows were collected by the process before."""
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo", "logger=wandb")
    run(tmp_path / "whole", chosen)
    run(tmp_path / "cut", [*chosen, "trainer.max_steps=6"])
    next_second()
    train(compose_config(chosen), tmp_path / "cut", newest(tmp_path / "cut"))
    whole, (_, cut) = offline_run(tmp_path / "whole"), offline_runs(tmp_path / "cut")
    known = {name: value for name, value in whole.history[-1].items() if name.startswith("histogram/")}
    assert len(known) == 6  # two of a type, bins and values
    assert {name: cut.history[-1].get(name) for name in known} == known
    assert cut.table(cut.history[-1]) == whole.table(whole.history[-1])
    assert cut.history[-1]["progress/tokens"] == whole.history[-1]["progress/tokens"]


def test_rows_that_the_server_has_are_not_sent_again(no_account: None, tmp_path: Path) -> None:
    """After `resume="allow"` W&B says which step comes next; here it says so offline, as a server would."""
    logger = logger_in(tmp_path)
    logger.experiment._starting_step = 4
    for step in (1, 3, 5):
        logger.log_metrics({"x": float(step)}, step)
    logger.finalize("success")
    logger.close()
    assert [row["x"] for row in offline_run(tmp_path).history] == [5.0]


def test_the_id_stays_with_the_folder(
    no_account: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WANDB_RUN_ID names a new run, and only one in a process."""
    monkeypatch.setenv("WANDB_RUN_ID", f"own{time.time_ns()}")
    given = os.environ["WANDB_RUN_ID"]
    for name in ("one", "two", "one"):
        logger_in(tmp_path / name)
    assert id_in(tmp_path / "one") == given
    assert id_in(tmp_path / "two") != given
    monkeypatch.setenv("WANDB_RUN_ID", "other")
    logger_in(tmp_path / "one")
    assert id_in(tmp_path / "one") == given


def id_in(folder: Path) -> str:
    return (folder / "wandb_id.txt").read_text().strip()
