"""`debug=` does what it says, and Lightning's callbacks and one's own take part in a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from small_runs import ROWS, overrides


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def tiny(algorithm: str, *more: str) -> list[str]:
    return overrides(Path("rows.jsonl"), "lstm", algorithm, "report=false", "hydra.run.dir=run", *more)


def test_overfitting_learns_four_rows_by_heart(rows: Path, feedtune: Any) -> None:
    """With four rows of one answer each the loss of sft has no floor above 0; with all rows it has one."""
    typed = [
        one
        for one in tiny("sft", "debug=overfit", "optimizer.lr=0.03", "~checkpoint")
        if "max_epochs" not in one
    ]
    assert feedtune("train", *typed).code == 0
    losses = [float(row["loss/policy"]) for row in metrics(rows.parent / "run")]
    assert len(losses) == 50
    assert losses[0] > 1.5
    assert losses[-1] < 0.05


def test_overfitting_takes_the_reward_to_its_best(rows: Path, feedtune: Any) -> None:
    """One character is the right length here: a reward of 1 for each response to the four prompts."""
    typed = [one for one in tiny("reinforce", "debug=overfit") if "max_epochs" not in one]
    typed += ["reward.target=1", "reward.unit=characters", "collector.responses=32", "optimizer.lr=0.03"]
    typed += ["~checkpoint"]
    assert feedtune("train", *typed).code == 0
    rewards = [float(row["rollout/reward"]) for row in metrics(rows.parent / "run")]
    assert rewards[0] < 0.6
    assert sum(rewards[-5:]) / 5 > 0.9
    records = map(json.loads, (rows.parent / "run" / "samples.jsonl").read_text().splitlines())
    asked = {record["prompt"] for record in records}
    assert len(asked) == 4
    assert asked <= {row["prompt"] for row in ROWS}


@pytest.mark.parametrize("count", [0, -3])
def test_fewer_than_one_row_is_refused(count: int, rows: Path, feedtune: Any) -> None:
    said = feedtune("train", *tiny("sft", f"overfit_rows={count}"))
    assert (said.code, said.err) == (
        2,
        f"feedtune: overfit_rows: expected at least 1, or null for all, got {count}\n",
    )


def test_the_profiler_says_where_the_time_went(rows: Path, feedtune: Any) -> None:
    said = feedtune("train", *tiny("ppo", "debug=profiler"))
    assert said.code == 0, said.err
    assert "where the time went, mean of 2 epochs" in said.out  # the command line wins over three
    report = (rows.parent / "run" / "fit-profile.txt").read_text()
    assert "TuningModule.optimizer_step" in report
    row = metrics(rows.parent / "run")[0]
    assert 0 < float(row["perf/epoch_seconds/sampling"]) < float(row["perf/epoch_seconds"])
    assert feedtune("resume", "run").code == 0


# callbacks


def test_early_stopping_ends_a_run_that_gets_no_better(rows: Path, feedtune: Any) -> None:
    """At a learning rate of 0 nothing gets better: one epoch to begin with, and two of patience."""
    more = ["callbacks=[quiet,early_stopping]", "callbacks.early_stopping.monitor=policy/kl"]
    typed = [
        *tiny("ppo", *more),
        "optimizer.lr=0",
        "callbacks.early_stopping.patience=2",
        "trainer.max_epochs=9",
    ]
    assert feedtune("train", *typed).code == 0
    assert [row["epoch"] for row in metrics(rows.parent / "run")] == ["0", "1", "2"]
    assert (rows.parent / "run" / "export" / "feedtune.json").is_file()


def test_early_stopping_names_the_metrics_that_there_are(rows: Path, feedtune: Any) -> None:
    more = ["callbacks=[quiet,early_stopping]", "callbacks.early_stopping.monitor=rollout/rewad"]
    said = feedtune("train", *tiny("ppo", *more))
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "feedtune: callbacks: Early stopping conditioned on metric `rollout/rewad`" in said.err
    assert "`rollout/reward`" in said.err


def test_the_learning_rate_is_monitored_by_a_logger(rows: Path, feedtune: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    chosen = [
        "callbacks=[quiet,learning_rate]",
        "optimizer.lr=0.01",
        "scheduler=linear",
        "scheduler.warmup=0",
    ]
    said = feedtune("train", *tiny("sft", *chosen))
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "Cannot use `LearningRateMonitor` callback with `Trainer` that has no logger" in said.err
    assert feedtune("train", *tiny("sft", *chosen), "logger=tensorboard").code == 0
    [events] = (rows.parent / "run").rglob("events.out.*")
    found = EventAccumulator(str(events.parent))
    found.Reload()
    [name] = [tag for tag in found.Tags()["scalars"] if tag.startswith("lr-")]
    rates = [event.value for event in found.Scalars(name)]
    assert rates[0] == pytest.approx(0.01)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01


def test_a_callback_of_ones_own_is_told_what_happens(rows: Path, feedtune: Any) -> None:
    """Its module lies in the working directory, which the user trusts by name."""
    (rows.parent / "my_callbacks.py").write_text(
        "from pathlib import Path\n"
        "from lightning import Callback\n\n\n"
        "class Diary(Callback):\n"
        "    def __init__(self, file: str) -> None:\n"
        "        self.file = Path(file)\n\n"
        "    def on_train_epoch_end(self, trainer, module) -> None:\n"
        "        reward = module.finish_epoch()['rollout/reward']\n"
        "        with self.file.open('a') as file:\n"
        "            print(trainer.current_epoch, reward, file=file)\n"
    )
    node = "+callbacks.diary={_target_: my_callbacks.Diary, file: diary.txt}"
    said = feedtune("train", *tiny("ppo", node, "plugins_path=null"))
    assert "'my_callbacks.Diary' is not trusted" in said.err
    import sys

    sys.path.insert(0, str(rows.parent))
    said = feedtune("train", *tiny("ppo", node, "trust=[my_callbacks]"))
    assert said.code == 0, said.err
    rewards = [row["rollout/reward"] for row in metrics(rows.parent / "run")]
    assert (rows.parent / "diary.txt").read_text() == "".join(f"{n} {r}\n" for n, r in enumerate(rewards))


def test_callbacks_are_left_out_by_name(rows: Path, feedtune: Any) -> None:
    assert feedtune("train", *tiny("ppo"), "~callbacks.samples").code == 0
    assert not (rows.parent / "run" / "samples.jsonl").exists()
    assert (rows.parent / "run" / "metrics.csv").exists()
