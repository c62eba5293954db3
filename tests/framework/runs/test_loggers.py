"""Loggers beside metrics.csv: what they wrote is read back from disk."""

from __future__ import annotations

import csv
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from feedtune.tracking import loggers
from kills.cases import Case
from kills.nursery import Nursery
from kills.stories import live
from small_runs import overrides, run, write_rows


def column(folder: Path, name: str) -> list[float]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file)]


def records_of(file: Path) -> Iterator[bytes]:
    """Records of a .wandb file: LevelDB's log format, blocks of 32 KiB, after seven bytes that name it."""
    data, at, record = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if 2**15 - at % 2**15 < 7:  # too little for a header: the block is filled up
            at += 2**15 - at % 2**15
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def wandb_history(folder: Path) -> list[dict[str, str]]:
    """What was logged into the one offline run of a folder; W&B's own process may write it a little later."""
    [file] = folder.glob("wandb/offline-run-*/run-*.wandb")
    patience = time.monotonic() + 30
    while not (found := history_in(file)) and time.monotonic() < patience:
        time.sleep(0.1)
    return found


def parsed(file: Path) -> Iterator[Any]:
    for data in records_of(file):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        yield record


def history_in(file: Path) -> list[dict[str, str]]:
    histories = [record.history.item for record in parsed(file) if record.HasField("history")]
    return [{item.key or "/".join(item.nested_key): item.value_json for item in items} for items in histories]


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine that has never seen W&B."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")


def test_wandb_without_an_account_writes_the_run_on_disk(no_account: None, tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo", "logger=wandb", "logger.name=mine")
    run(tmp_path / "run", chosen)
    assert wandb.run is None  # closed, so that the next run of a sweep is one of its own
    rewards = [
        float(row["rollout/reward"]) for row in wandb_history(tmp_path / "run") if "rollout/reward" in row
    ]
    assert rewards == pytest.approx(column(tmp_path / "run", "rollout/reward"))


def test_two_runs_in_one_process_are_two(no_account: None, tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "ngram", "sft", "logger=wandb", "trainer.max_epochs=1")
    for name in ("one", "two"):
        run(tmp_path / name, chosen)
        assert len(wandb_history(tmp_path / name)) == 1


def test_tensorboard_events(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path / "run", overrides(write_rows(tmp_path), "lstm", "ppo", "logger=tensorboard"))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert {"rollout/reward", "policy/kl", "loss/policy"} <= set(events.Tags()["scalars"])
    rewards = [event.value for event in events.Scalars("rollout/reward")]
    assert rewards == pytest.approx(column(tmp_path / "run", "rollout/reward"))


@pytest.mark.parametrize(
    ("mode", "key", "netrc", "given", "offline"),
    [
        (None, None, None, None, True),  # no account: what would be asked for is not there
        (None, "secret", None, None, False),
        (None, None, "machine api.wandb.ai login user password secret", None, False),
        (None, None, "machine example.com login user password secret", None, True),
        ("offline", "secret", None, None, True),
        ("disabled", "secret", None, None, True),
        ("online", None, None, None, False),
        (None, "secret", None, True, True),  # said in so many words
        ("offline", None, None, False, False),
    ],
)
def test_offline_unless_there_is_an_account(
    mode: str | None,
    key: str | None,
    netrc: str | None,
    given: bool | None,
    offline: bool,
    no_account: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(loggers, "RunWandb", lambda **options: asked.update(options))
    for name, value in {"WANDB_MODE": mode, "WANDB_API_KEY": key}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    if netrc is not None:
        (tmp_path / "netrc").write_text(netrc)
    loggers.wandb_logger(project="feedtune", offline=given, folder=str(tmp_path / "run"))
    assert asked["offline"] is offline
    assert asked["folder"] == tmp_path / "run"
    assert (tmp_path / "run").is_dir()


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
    began = time.time()
    while time.time() < int(began) + 1.1:  # W&B names its folders by the second
        time.sleep(0.05)
    story = live(nursery, case, folder)
    assert story.chapters[0].began == 4  # two steps an epoch
    known = (run / "wandb_id.txt").read_text().strip()
    first, second = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    assert _settled(second, rows=5)
    for file in (first, second):
        assert file.name == f"run-{known}.wandb"
    assert {entry.run.run_id for entry in parsed(second) if entry.HasField("run")} == {known}
    sent = [row for row in history_in(second) if "rollout/reward" in row]
    assert [int(float(row["epoch"])) for row in sent] == [0, 1, 2, 3, 4]
    for name in ("_step", "trainer/global_step"):
        assert [int(row[name]) for row in sent] == [1, 3, 5, 7, 9]
    assert [float(row["rollout/reward"]) for row in sent] == pytest.approx(column(run, "rollout/reward"))


def test_rows_that_the_server_has_are_not_sent_again(no_account: None, tmp_path: Path) -> None:
    """After `resume="allow"` W&B says which step comes next; here it says so offline, as a server would."""
    logger = loggers.wandb_logger(project="feedtune", mode="offline", folder=str(tmp_path))
    logger.experiment._starting_step = 4  # type: ignore[attr-defined]
    for step in (1, 3, 5):
        logger.log_metrics({"x": float(step)}, step)
    logger.finalize("success")
    [file] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert _settled(file, rows=1)
    assert [float(row["x"]) for row in history_in(file)] == [5.0]


def _settled(file: Path, rows: int) -> bool:
    """Whether so many rows come to stand in a file; W&B's own process may write it a little later."""
    patience = time.monotonic() + 30
    while len(history_in(file)) < rows and time.monotonic() < patience:
        time.sleep(0.1)
    return len(history_in(file)) >= rows
