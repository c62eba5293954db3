"""Alarms: rules over an epoch's numbers, by hand; and runs that go wrong, or do not."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from feedtune.callbacks import Alarms
from feedtune.callbacks.files import read_metrics
from feedtune.checkpoints import newest
from feedtune.config.compose import compose_config, to_plain
from feedtune.errors import UserError
from feedtune.evaluation import evaluate
from feedtune.runs.assembly import assemble, checked
from feedtune.runs.training import train
from small_runs import overrides, run, write_rows

NAN = math.nan


def raised(alarms: Alarms, name: str, **series: Sequence[float]) -> list[bool]:
    """Whether an alarm rings in each epoch; `a__b` stands for the metric a/b."""
    metrics = {key.replace("__", "/"): values for key, values in series.items()}
    epochs = zip(*metrics.values(), strict=True)
    return [bool(alarms.look(dict(zip(metrics, values, strict=True))).get(name)) for values in epochs]


def alarms(**chosen: Any) -> Alarms:
    """Compares with the first two epochs and rings in the second broken one."""
    return Alarms(**{"first": 2, "in_a_row": 2, **chosen})


def test_kl_blow_up() -> None:
    """More than 1 nat a token: 8 tokens may have 8 nats. The first epochs have no say: KL begins at 0."""
    kl, length = [0.0, 8.0, 8.1, 8.1, 8.1, 16.1], [8.0, 8.0, 8.0, 8.0, 16.0, 16.0]
    assert raised(alarms(), "kl", policy__kl=kl, rollout__length=length) == [
        False,
        False,
        False,
        True,
        False,
        False,
    ]
    assert not any(raised(alarms(kl=3.0), "kl", policy__kl=kl, rollout__length=length))


def test_entropy_collapse() -> None:
    """The first two epochs' mean is 3, a tenth of it 0.3."""
    entropy = [4.0, 2.0, 0.29, 0.31, 0.29, 0.28, 0.27]
    assert raised(alarms(), "entropy", policy__entropy=entropy) == [False] * 5 + [True] * 2
    assert raised(alarms(entropy=0.2), "entropy", policy__entropy=entropy) == [False] * 3 + [True] * 4


def test_length_collapse_and_growth() -> None:
    """Of 10 tokens: below 2.5, above 30."""
    length = [8.0, 12.0, 2.4, 2.4, 2.6, 29.0, 31.0, 31.0]
    assert raised(alarms(), "shorter", rollout__length=length) == [False] * 3 + [True] + [False] * 4
    assert raised(alarms(), "longer", rollout__length=length) == [False] * 7 + [True]
    assert raised(alarms(longer=2.0), "longer", rollout__length=length) == [False] * 6 + [True] * 2


def test_growth_to_the_limit() -> None:
    """0.8 of the responses ended at first; a fifth of that is 0.16."""
    ended = [0.9, 0.7, 0.17, 0.15, 0.15, 0.0]
    assert raised(alarms(), "cut", rollout__ended=ended) == [False] * 4 + [True] * 2


def test_everybody_hears_the_same() -> None:
    """Half of the responses differed at first; below .3 of that is below 0.15."""
    distinct = [0.6, 0.4, 0.16, 0.14, 0.14]
    assert raised(alarms(), "distinct", rollout__distinct=distinct) == [False] * 4 + [True]


def test_the_sampler_drifts() -> None:
    """From the first epoch on: what it is compared with is known."""
    assert raised(alarms(in_a_row=1), "drift", rollout__logp_drift=[0.11, 0.09, 0.11]) == [True, False, True]


def test_reward_hacking() -> None:
    """Best at .6, reward then .5. Four errors of .05 below that is .4, which must be missed twice running."""
    series = {
        "eval__reward": [0.1, 0.5, 0.6, 0.7, 0.8, 0.9, 0.4],
        "eval__monitor": [0.2, 0.6, 0.41, 0.39, 0.39, 0.3, 0.3],
        "eval__monitor_error": [0.05] * 7,
    }
    assert raised(alarms(), "hacking", **series) == [False] * 4 + [True, True, False]
    assert raised(alarms(hacking=6.0), "hacking", **series) == [False] * 7
    wider = {
        **series,
        "eval__monitor_error": [0.01, 0.1, *[0.01] * 5],
    }  # the error of the best counts as well
    assert not any(raised(alarms(), "hacking", **wider))


def test_both_falling_is_no_hacking() -> None:
    reward, monitor = [0.5, 0.4, 0.3, 0.2], [0.6, 0.3, 0.2, 0.1]
    series = {"eval__reward": reward, "eval__monitor": monitor, "eval__monitor_error": [0.01] * 4}
    assert not any(raised(alarms(), "hacking", **series))


def test_epochs_without_an_evaluation_neither_count_nor_break_the_row() -> None:
    one = alarms()
    bad = {"eval/reward": 0.9, "eval/monitor": 0.1, "eval/monitor_error": 0.01}
    one.look({"eval/reward": 0.1, "eval/monitor": 0.9, "eval/monitor_error": 0.01})
    assert one.look(bad)["hacking"] == ""
    assert "hacking" not in one.look({"rollout/reward": 1.0})
    assert one.look(bad)["hacking"].startswith(
        "eval/reward has risen from 0.1 to 0.9 while eval/monitor has fallen"
    )


def test_what_is_not_known_rings_no_bell() -> None:
    """Imitation has neither entropy nor responses; NaN (no row was scored) is neither high nor low."""
    one = alarms(in_a_row=1)
    assert one.look({"loss/policy": 1.0}) == {}
    assert one.look({"rollout/distinct": NAN, "rollout/length": 3.0}) == {"shorter": "", "longer": ""}
    assert one.look({"rollout/distinct": 0.5}) == {"distinct": ""}  # never known in the first two epochs
    assert one.look({"rollout/distinct": 0.0}) == {"distinct": ""}


def test_one_epoch_is_not_enough_and_the_row_begins_anew() -> None:
    length = [10.0, 10.0, 1.0, 10.0, 1.0, 1.0, 1.0]
    assert raised(alarms(in_a_row=3), "shorter", rollout__length=length) == [False] * 6 + [True]


def test_a_threshold_of_null_is_no_alarm() -> None:
    one = alarms(shorter=None, in_a_row=1)
    one.look({"rollout/length": 10.0})
    one.look({"rollout/length": 10.0})
    assert one.look({"rollout/length": 1.0}) == {"longer": ""}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"first": 0}, r"callbacks\.alarms\.first: expected at least 1, got 0"),
        ({"in_a_row": 0}, r"callbacks\.alarms\.in_a_row: expected at least 1, got 0"),
        ({"cut": 0.0}, r"callbacks\.alarms\.cut: expected a number above 0, got 0.0"),
    ],
)
def test_thresholds_that_make_no_sense(chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Alarms(**chosen)


def test_a_resumed_run_compares_with_the_same_epochs_and_counts_on() -> None:
    """Cut in two anywhere, the series rings where it rings in one piece."""
    length = [8.0, 12.0, 2.4, 2.4, 2.6, 2.4, 2.4, 31.0, 31.0]
    whole = raised(alarms(), "shorter", rollout__length=length)
    assert whole == [False, False, False, True, False, False, True, False, False]
    for cut in range(1, len(length)):
        one, other = alarms(), alarms()
        before = raised(one, "shorter", rollout__length=length[:cut])
        other.load_state_dict(one.state_dict())
        assert before + raised(other, "shorter", rollout__length=length[cut:]) == whole, cut


# Runs


def chosen(folder: Path, *more: str) -> list[str]:
    """Eight short rollouts of a tiny LSTM under REINFORCE, with alarms and nothing printed but them."""
    base = overrides(
        write_rows(folder), "lstm", "reinforce", "trainer.max_epochs=8", "collector.responses=32"
    )
    base = [one for one in base if one != "callbacks=quiet"]
    return [*base, "~callbacks.progress", "collector.max_new_tokens=16", "algorithm.kl.coefficient=0", *more]


def columns(folder: Path, name: str) -> list[str]:
    return [row[f"alarm/{name}"] for row in read_metrics(folder / "metrics.csv", 99)]


LONG = ["reward.shape=at_least", "reward.unit=characters", "reward.target=16", "optimizer.lr=0.05"]
SHORT = ["reward.shape=at_most", "reward.unit=characters", "reward.target=1", "optimizer.lr=0.05"]


def test_a_run_that_is_paid_for_length_rings(tmp_path: Path, capsys: Any) -> None:
    run(tmp_path / "run", chosen(tmp_path, *LONG))
    assert "1.0" in columns(tmp_path / "run", "cut")
    assert "0.0" in columns(tmp_path / "run", "cut")
    said = capsys.readouterr().err
    assert said.count("alarm/cut, epoch ") == 1  # once, however long it lasts
    assert "algorithm.overlong" in said
    assert "callbacks.alarms.cut=null is without" in said


def test_a_run_that_collapses_rings(tmp_path: Path, capsys: Any) -> None:
    """Paid for saying nothing: lengths, entropy and variety all go."""
    run(tmp_path / "run", chosen(tmp_path, *SHORT))
    said = capsys.readouterr().err
    for name in ("entropy", "shorter", "distinct"):
        assert "1.0" in columns(tmp_path / "run", name), name
        assert said.count(f"alarm/{name}, epoch ") == 1, name
    assert "1.0" not in columns(tmp_path / "run", "longer")


def test_a_healthy_run_is_silent(tmp_path: Path, capsys: Any) -> None:
    run(tmp_path / "run", chosen(tmp_path, *LONG, "optimizer.lr=0.002", "algorithm.kl.coefficient=0.05"))
    rows = read_metrics(tmp_path / "run" / "metrics.csv", 99)
    rung = {name: [row[name] for row in rows] for name in rows[0] if name.startswith("alarm/")}
    names = ["cut", "distinct", "entropy", "kl", "longer", "shorter"]
    assert rung == {f"alarm/{name}": ["0.0"] * 8 for name in names}
    assert "alarm/" not in capsys.readouterr().err


def test_a_run_may_stop_at_an_alarm(tmp_path: Path, capsys: Any) -> None:
    run(tmp_path / "run", chosen(tmp_path, *LONG, "callbacks.alarms.stop=true"))
    rung = columns(tmp_path / "run", "cut")
    assert rung[-1] == "1.0"
    assert "1.0" not in rung[:-1]
    assert len(rung) < 8
    assert "The run ends here (callbacks.alarms.stop=true)" in capsys.readouterr().err
    assert newest(tmp_path / "run") is not None
    assert (tmp_path / "run" / "export" / "feedtune.json").is_file()


def test_what_rang_before_a_kill_is_not_said_again(tmp_path: Path, capsys: Any) -> None:
    """Stopped by its alarm, resumed without stopping: the same row, and silence about it."""
    folder = tmp_path / "run"
    run(folder, chosen(tmp_path, *LONG, "callbacks.alarms.stop=true"))
    ended = len(columns(folder, "cut"))
    capsys.readouterr()
    train(compose_config(chosen(tmp_path, *LONG)), folder, newest(folder))
    assert columns(folder, "cut")[ended - 1 :] == ["1.0"] * (9 - ended)
    assert "alarm/cut" not in capsys.readouterr().err


# The monitor


def test_a_monitor_scores_the_same_responses(tmp_path: Path) -> None:
    """A keyword that stands in no response is worth 0 each: mean 0, error 0. Length is what it is."""
    base = chosen(
        tmp_path, "evaluation.every=2", "evaluation.rows=2", "task.eval_fraction=0.2", "trainer.max_epochs=3"
    )
    run(tmp_path / "run", [*base, "reward@monitor.reward=length", "monitor.reward.unit=characters"])
    rows = read_metrics(tmp_path / "run" / "metrics.csv", 9)
    assert [bool(row.get("eval/monitor")) for row in rows] == [False, True, True]
    assert [row.get("alarm/hacking") for row in rows] == [None, "0.0", "0.0"]
    run(tmp_path / "plain", base)
    plain = read_metrics(tmp_path / "plain" / "metrics.csv", 9)
    for row, other in zip(rows, plain, strict=True):  # it looks on and changes nothing
        assert row["loss/policy"] == other["loss/policy"]
        assert row.get("eval/reward") == other.get("eval/reward")


def test_its_mean_and_error_are_those_of_the_scores(tmp_path: Path) -> None:
    """Scores 1, 2, 3 and one without opinion: mean 2, deviation 1, error 1/sqrt(3)."""
    parts = assemble(checked(compose_config(chosen(tmp_path, "task.eval_fraction=0.2")), tmp_path))
    scores = iter([[1.0, 2.0, 3.0, NAN], [5.0, NAN, NAN, NAN]])
    rows = parts.module.rows[:4]
    found = [
        evaluate(
            parts.module.policy.eval(), parts.codec, rows, None, parts.options, monitor=lambda s: next(scores)
        )
        for _ in range(2)
    ]
    assert found[0].metrics["eval/monitor"] == 2.0
    assert found[0].metrics["eval/monitor_error"] == pytest.approx(1 / math.sqrt(3))
    assert found[1].metrics["eval/monitor"] == 5.0
    assert math.isnan(found[1].metrics["eval/monitor_error"])  # of one score nobody knows


def test_a_monitor_without_evaluations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^monitor\.reward: it scores .* set evaluation\.every"):
        run(tmp_path / "run", chosen(tmp_path, "reward@monitor.reward=length"))


def test_a_monitor_of_episodes_is_refused(tmp_path: Path) -> None:
    base = ["algorithm=reinforce", "backbone=lstm", "tokenizer=char", "evaluation.every=1"]
    play = ["collector=gymnasium", "collector.env=feedtune/CharText-v0", "task=gymnasium", "reward=length"]
    with pytest.raises(UserError, match=r"^monitor\.reward: with Gymnasium evaluation plays episodes"):
        run(tmp_path / "run", [*base, *play, "reward@monitor.reward=length"])


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("+monitor.rewrad={}", ["monitor.rewrad", "reward"]),
        ("monitor.reward=5", ["monitor.reward: expected"]),
        ("reward@monitor.reward=lenght", ["Did you mean 'length'"]),
        ("callbacks.alarms.kl=high", ["callbacks.alarms.kl: expected a number or null"]),
    ],
)
def test_mistakes_are_named(typed: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError) as stop:
        run(tmp_path / "run", chosen(tmp_path, typed))
    assert [word for word in words if word not in str(stop.value)] == []


def test_the_yaml_says_what_the_constructor_does() -> None:
    """Every threshold is there, with the value that it has where it is left out."""
    node = to_plain(compose_config(["callbacks=default"]).callbacks.alarms)
    assert next(iter(compose_config(["callbacks=default"]).callbacks)) == "alarms"  # before metrics.csv
    given, plain = Alarms(**{k: v for k, v in node.items() if k != "_target_"}), Alarms()
    assert given.thresholds == plain.thresholds
    assert len(given.thresholds) == len(node) - 4  # first, in_a_row, stop, _target_
    assert (given.first, given.in_a_row, given.stop) == (plain.first, plain.in_a_row, plain.stop)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is broken."""
    monkeypatch.setenv("COLUMNS", "1000")


def test_evaluation_asks_the_monitor_of_the_run_too(rows: Path, feedtune: Any) -> None:
    """Another reward for the evaluation leaves the run's monitor, and its options, as they were."""
    watched = ["reward@monitor.reward=length", "monitor.reward.unit=characters", "evaluation.every=1"]
    command = [*overrides(rows, "lstm", "reinforce"), *watched, "task.eval_fraction=0.2", "report=false"]
    assert feedtune("train", *command, "hydra.run.dir=run").code == 0
    assert feedtune("evaluate", "run", "reward=keyword").code == 0
    found = json.loads((rows.parent / "run" / "evaluation.json").read_text())["metrics"]
    assert found["eval/monitor"] > found["eval/reward"] == 0.0
