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

from feedtune.runs import loggers
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


def history_in(file: Path) -> list[dict[str, str]]:
    found = []
    for data in records_of(file):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = record.history.item
            found.append({item.key or "/".join(item.nested_key): item.value_json for item in items})
    return found


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
    monkeypatch.setattr(loggers, "_RunLogger", lambda **options: asked.update(options))
    for name, value in {"WANDB_MODE": mode, "WANDB_API_KEY": key}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    if netrc is not None:
        (tmp_path / "netrc").write_text(netrc)
    loggers.wandb_logger(project="feedtune", offline=given, folder=str(tmp_path / "run"))
    assert asked["offline"] is offline
    assert asked["save_dir"] == str(tmp_path / "run")
    assert (tmp_path / "run").is_dir()
