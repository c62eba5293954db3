"""Where an epoch's time went: parts that exclude each other, add up, and survive a resume."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback
from omegaconf import open_dict

from feedtune.callbacks.files import read_metrics
from feedtune.config.compose import compose_config
from feedtune.profiling import PARTS, ROLLOUT, Lap, Stopwatch, timed, timing
from feedtune.runs.training import train
from small_runs import SMALL, fingerprint, newest_state, overrides, rows_for, run, write_rows

ALWAYS = {
    "perf/epoch_seconds",
    "perf/rollout_seconds",
    "perf/update_seconds",
    "perf/tokens_per_second",
}
PROFILED = ALWAYS | {f"perf/epoch_seconds/{part}" for part in PARTS}
PLAYING = [
    *SMALL["gru"],
    "algorithm=ppo",
    "collector=gymnasium",
    "task=gymnasium",
    "collector.options={length: 3, alphabet: ab}",
    "collector.episodes=8",
    "task.rows=4",
    "tokenizer=char",
    "reward=length",
    "callbacks=quiet",
    "trainer.max_epochs=2",
]
SLOW = """
import time
def score(prompts, responses):
    time.sleep(0.05)
    return [float(len(response)) for response in responses]
"""
NAP = 0.05  # seconds that SLOW takes for each batch of responses


def perf(folder: Path) -> list[dict[str, float]]:
    """The columns perf/* of metrics.csv, one mapping an epoch."""
    rows = read_metrics(folder / "metrics.csv", 99)
    return [{k: float(v) for k, v in row.items() if k.startswith("perf/")} for row in rows]


def seconds(row: dict[str, float], part: str) -> float:
    return row[f"perf/epoch_seconds/{part}"]


def slow_reward(folder: Path) -> list[str]:
    path = folder / "slow.py"
    path.write_text(SLOW)
    return ["reward=function", f"reward.path={path}:score"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the time is, in seconds, to be set by the test."""
    now = [0.0]
    monkeypatch.setattr("feedtune.profiling.time.perf_counter", lambda: now[0])
    return now


# The stopwatch


def test_a_part_inside_another_stops_it(clock: list[float]) -> None:
    watch = Stopwatch()  # at 0
    clock[0] = 1.0
    with watch.part("prepare"):  # 1 to 3 and 6 to 10
        clock[0] = 3.0
        with watch.part("sampling"):  # 3 to 4 and 5 to 6
            clock[0] = 4.0
            with watch.part("reward"):  # 4 to 5
                clock[0] = 5.0
            clock[0] = 6.0
        clock[0] = 10.0
    clock[0] = 16.0  # other: 0 to 1 and 10 to 16
    lap = watch.lap()
    expected = {"prepare": 6.0, "sampling": 2.0, "reward": 1.0, "other": 7.0}
    assert lap.seconds == {**dict.fromkeys(PARTS, 0.0), **expected}
    assert lap.total == 16.0


def test_an_error_ends_its_parts(clock: list[float]) -> None:
    def fail() -> None:
        clock[0] = 2.0
        raise ValueError("mine")

    watch = Stopwatch()
    with pytest.raises(ValueError, match="mine"), watch.part("prepare"), watch.part("reward"):
        fail()
    clock[0] = 5.0
    lap = watch.lap()
    assert (lap.seconds["reward"], lap.seconds["prepare"], lap.seconds["other"]) == (2.0, 0.0, 3.0)


def test_a_lap_begins_anew_and_the_total_goes_on(clock: list[float]) -> None:
    watch = Stopwatch()
    watch.start("update")
    clock[0] = 2.0
    watch.now.collected, watch.now.trained = 6.0, 12.0
    first = watch.lap()
    # Update 2 s, 6 tokens of a collection and twice as many in two passes; all of them a second of the epoch.
    assert first.metrics(by_part=False) == {
        "perf/epoch_seconds": 2.0,
        "perf/rollout_seconds": 0.0,
        "perf/update_seconds": 2.0,
        "perf/tokens_per_second": 3.0,
    }
    assert first.speeds() == {"update": 6.0}
    clock[0] = 7.0
    assert watch.lap().seconds["update"] == 5.0
    clock[0] = 8.0
    watch.stop()
    clock[0] = 99.0  # after the end
    assert (watch.total.seconds["update"], watch.total.total, watch.laps) == (8.0, 8.0, 2)


def test_what_was_counted_survives_a_checkpoint(clock: list[float]) -> None:
    watch, other = Stopwatch(), Stopwatch()
    with watch.part("reward"):
        clock[0] = 4.0
    watch.now.collected, watch.now.trained = 3.0, 5.0
    clock[0] = 50.0
    other.load_state_dict(watch.state_dict())
    other.start("update")
    clock[0] = 51.0
    lap = other.lap()
    assert (lap.seconds["reward"], lap.seconds["update"], lap.total) == (4.0, 1.0, 5.0)
    assert (lap.collected, lap.trained) == (3.0, 5.0)
    assert watch.now.seconds["reward"] == 4.0  # a lap of the other one does not reach back


def test_the_device_is_waited_for_at_the_borders_of_parts() -> None:
    waited: list[bool] = []
    watch = Stopwatch()
    with watch.part("reward"):
        pass
    assert waited == []
    watch.wait = lambda: waited.append(True)
    with watch.part("reward"):
        assert len(waited) == 1
    assert len(waited) == 2


def test_timed_counts_only_where_a_stopwatch_runs(clock: list[float]) -> None:
    @timed("reward")
    def work() -> str:
        clock[0] += 1.0
        return "done"

    watch = Stopwatch()
    assert work() == "done"  # no stopwatch
    with timing(watch):
        assert work() == "done"
        thread = threading.Thread(target=work)  # beside the main thread, whose time is counted
        thread.start()
        thread.join()
    work()
    assert watch.lap().seconds["reward"] == 1.0
    assert watch.total.seconds["other"] == 3.0


def test_a_table_for_people(clock: list[float]) -> None:
    watch = Stopwatch()
    watch.total = Lap(collected=20.0)
    watch.total.seconds |= {"sampling": 1.0, "update": 3.0}
    watch.laps = 2
    table = watch.table()
    columns = [list(column.cells) for column in table.columns]
    assert columns == [
        ["sampling", "update", "epoch"],
        ["0.5", "1.5", "2"],  # of two epochs
        ["25.0%", "75.0%", ""],
        ["20", "", "5"],  # 20 tokens in one second of sampling and in four seconds of all
    ]
    assert str(table.title).endswith("mean of 2 epochs")


# Runs


@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "q_learning", "sft", "dpo"])
def test_the_parts_add_up_to_the_epoch(tmp_path: Path, algorithm: str) -> None:
    data = write_rows(tmp_path, rows_for(algorithm))
    run(tmp_path / "run", overrides(data, "transformer", algorithm, "profile=true"))
    rows = perf(tmp_path / "run")
    assert len(rows) == 2
    for row in rows:
        assert set(row) - {"perf/tokens_per_second/sampling", "perf/tokens_per_second/update"} == PROFILED
        assert row["perf/epoch_seconds"] == pytest.approx(sum(seconds(row, part) for part in PARTS))
        assert row["perf/rollout_seconds"] == pytest.approx(sum(seconds(row, part) for part in ROLLOUT))
        assert row["perf/update_seconds"] == seconds(row, "update") > 0
        spoke = algorithm not in ("sft", "dpo")
        assert (seconds(row, "sampling") > 0) == (seconds(row, "reward") > 0) == spoke
        assert ("perf/tokens_per_second/sampling" in row) == spoke
        assert (seconds(row, "reference") > 0) == (algorithm in ("ppo", "grpo", "dpo"))
        assert seconds(row, "prepare") > 0


def test_the_parts_of_an_environment(tmp_path: Path) -> None:
    run(tmp_path / "run", [*PLAYING, "profile=true"])
    for row in perf(tmp_path / "run"):
        assert row["perf/epoch_seconds"] == pytest.approx(sum(seconds(row, part) for part in PARTS))
        assert min(seconds(row, part) for part in ("sampling", "reward", "update")) > 0


@pytest.mark.parametrize("algorithm", ["ppo", "sft"])
def test_without_a_profile_there_are_four_columns(tmp_path: Path, algorithm: str) -> None:
    run(tmp_path / "run", overrides(write_rows(tmp_path), "lstm", algorithm))
    for row in perf(tmp_path / "run"):
        assert set(row) == ALWAYS
        assert min(row.values()) > 0
        assert row["perf/rollout_seconds"] + row["perf/update_seconds"] <= row["perf/epoch_seconds"]


def test_a_profile_changes_nothing_that_is_learned(tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo", "optimizer.lr=0.01")
    run(tmp_path / "plain", chosen)
    run(tmp_path / "profiled", [*chosen, "profile=true"])
    assert fingerprint(tmp_path / "plain") == fingerprint(tmp_path / "profiled")


def test_tokens_are_those_that_were_said_and_trained(tmp_path: Path) -> None:
    more = ["buffer.passes=2", "buffer.minibatches=4", "trainer.accumulate_grad_batches=3", "profile=true"]
    run(tmp_path / "run", overrides(write_rows(tmp_path), "lstm", "ppo", *more))
    lengths = [float(row["rollout/length"]) for row in read_metrics(tmp_path / "run" / "metrics.csv", 99)]
    for length, row in zip(lengths, perf(tmp_path / "run"), strict=True):
        said = 8 * length  # of eight responses; each is trained in both passes, in windows of 3, 3 and 2
        assert row["perf/tokens_per_second"] * row["perf/epoch_seconds"] == pytest.approx(said)
        assert row["perf/tokens_per_second/sampling"] * seconds(row, "sampling") == pytest.approx(said)
        assert row["perf/tokens_per_second/update"] * seconds(row, "update") == pytest.approx(2 * said)


def test_time_is_charged_to_who_took_it(tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "lstm", "reinforce", "profile=true", *slow_reward(tmp_path))
    run(tmp_path / "run", chosen)
    assert all(seconds(row, "reward") >= NAP for row in perf(tmp_path / "run"))


def test_evaluation_is_a_part_of_its_own(tmp_path: Path) -> None:
    more = ["evaluation.every=2", "evaluation.rows=2", "profile=true", *slow_reward(tmp_path)]
    run(tmp_path / "run", overrides(write_rows(tmp_path), "lstm", "sft", *more))
    first, second = perf(tmp_path / "run")
    assert seconds(first, "evaluation") == 0
    assert seconds(second, "evaluation") >= NAP
    assert seconds(second, "sampling") == seconds(second, "reward") == 0  # only held-out answers were given


def test_a_checkpoint_counts_in_the_next_row(tmp_path: Path) -> None:
    run(tmp_path / "run", overrides(write_rows(tmp_path), "lstm", "ppo", "profile=true"))
    first, second = perf(tmp_path / "run")
    assert seconds(first, "checkpoint") == seconds(first, "logging") == 0
    assert min(seconds(second, "checkpoint"), seconds(second, "logging")) > 0


def test_a_table_is_printed_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo", "trainer.max_epochs=1")
    run(tmp_path / "plain", chosen)
    assert "where the time went" not in capsys.readouterr().out
    run(tmp_path / "profiled", [*chosen, "profile=true"])
    said = capsys.readouterr().out
    assert "where the time went, mean of 1 epoch " in said
    # The only checkpoint follows the only row, and is in the table all the same.
    for part in ("sampling", "reward", "reference", "prepare", "update", "checkpoint", "logging"):
        assert part in said
    assert "evaluation" not in said


class KilledError(Exception):
    """Stands for the end of the process."""


class KillAfter(Callback):
    """Raises once the optimiser has made so many steps, after the checkpoint of that step was written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise KilledError


@pytest.mark.parametrize("step", [1, 2])
def test_a_resumed_run_goes_on_counting(tmp_path: Path, step: int) -> None:
    """An epoch has two steps: the run is killed within the first epoch (1) or as the second begins (2)."""
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo", "profile=true")
    chosen += ["buffer.passes=1", "buffer.minibatches=2", "checkpoint.every_steps=1", *slow_reward(tmp_path)]
    folder = tmp_path / "run"
    folder.mkdir()
    config = compose_config(chosen)
    with open_dict(config):
        config.callbacks.kill = {"_target_": f"{__name__}.KillAfter", "step": step}
        config.trust = [__name__]
    with pytest.raises(KilledError):
        train(config, folder)
    train(compose_config(chosen), folder, newest_state(folder), force=True)  # without the callback that kills
    rows = perf(folder)
    assert len(rows) == 2
    for row in rows:
        assert row["perf/epoch_seconds"] == pytest.approx(sum(seconds(row, part) for part in PARTS))
        assert seconds(row, "reward") >= NAP  # the rollout before the kill counts, too
        assert row["perf/epoch_seconds"] < 60  # an epoch that had begun before is not dated from nowhere
    length = float(read_metrics(folder / "metrics.csv", 1)[0]["rollout/length"])
    assert rows[0]["perf/tokens_per_second"] * rows[0]["perf/epoch_seconds"] == pytest.approx(8 * length)
    assert rows[0]["perf/tokens_per_second/update"] * seconds(rows[0], "update") == pytest.approx(8 * length)
