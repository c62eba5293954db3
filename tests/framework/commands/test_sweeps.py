"""Sweeps of `feedtune train`: a failed job loses no other, and what a run returns is what was asked for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from feedtune.config.compose import compose_config
from feedtune.errors import UserError
from feedtune.runs import training
from feedtune.runs.objective import value_of
from small_runs import overrides, run, write_rows

FOUR = ["-m", "hydra.sweep.dir=sweep", "seed=0,1", "reward.target=0,3"]
"""Two of the four jobs have a mistake: lengths begin at 1."""


@pytest.fixture
def tiny(rows: Path) -> list[str]:
    return overrides(Path("rows.jsonl"), "ngram", "reinforce", "report=false", "trainer.max_epochs=1")


def jobs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]


def last_reward(folder: Path) -> float:
    header, *lines = (folder / "metrics.csv").read_text().splitlines()
    return float(lines[-1].split(",")[header.split(",").index("rollout/reward")])


def test_the_failed_jobs_of_four_are_named_and_the_others_complete(
    tiny: list[str], rows: Path, feedtune: Any
) -> None:
    said = feedtune("train", *tiny, *FOUR)
    assert said.code == 2
    folder = rows.parent / "sweep"
    assert said.err.splitlines()[-3:] == [
        f"feedtune: seed=0 reward.target=0 ({folder / '0'}): reward.target: expected 1 or more, got 0",
        f"seed=1 reward.target=0 ({folder / '2'}): reward.target: expected 1 or more, got 0",
        "2 of 4 jobs of the sweep failed",
    ]
    assert "sweep: 2 of 4 jobs are complete" in said.out
    for number, seed in ((1, 0), (3, 1)):
        assert (folder / str(number) / "export" / "feedtune.json").is_file()
        value = last_reward(folder / str(number))
        assert f"rollout/reward {value:.4g}  seed={seed} reward.target=3 ({folder / str(number)})" in said.out
        assert jobs(folder)[number]["value"] == pytest.approx(value)
    assert [job["error"] is None for job in jobs(folder)] == [False, True, False, True]


def test_an_error_of_ours_in_one_job_ends_with_1_and_the_other_is_complete(
    tiny: list[str], rows: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = training.train

    def broken(config: Any, *given: Any, **named: Any) -> dict[str, float]:
        if config.seed == 0:
            raise ValueError("a mistake of ours")
        return train(config, *given, **named)

    monkeypatch.setattr(training, "train", broken)
    monkeypatch.setattr("tempfile.tempdir", str(rows.parent))
    said = feedtune("train", *tiny, "-m", "hydra.sweep.dir=sweep", "seed=0,1")
    assert said.code == 1
    assert f"feedtune: seed=0 ({rows.parent / 'sweep' / '0'}): ValueError: a mistake of ours\n" in said.err
    assert [job["error"] is None for job in jobs(rows.parent / "sweep")] == [False, True]


def test_what_an_earlier_sweep_said_in_the_folder_is_forgotten(
    tiny: list[str], rows: Path, feedtune: Any
) -> None:
    again = [*tiny, "-m", "hydra.sweep.dir=sweep", "reward.target=0"]
    assert [feedtune("train", *again).code for _ in range(2)] == [2, 2]
    assert len(jobs(rows.parent / "sweep")) == 1


def test_a_grid_takes_no_intervals(tiny: list[str], feedtune: Any) -> None:
    said = feedtune("train", *tiny, "-m", "hydra.sweep.dir=sweep", "optimizer.lr=interval(1e-4,1e-2)")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "a grid takes its values from a list, as in optimizer.lr=1e-4,1e-3" in said.err
    assert "hparams_search=optuna" in said.err


# Optuna


@pytest.mark.filterwarnings("ignore:The ..declarative_base:DeprecationWarning")  # optuna 2's tables
def test_optuna_chooses_by_what_runs_return(tiny: list[str], rows: Path, feedtune: Any) -> None:
    """Four trials over two targets, one of them a mistake: it fails, and the best of the rest is found."""
    search = ["hparams_search=optuna", "hydra.sweeper.n_trials=4", "hydra.sweep.dir=sweep"]
    said = feedtune("train", *tiny, *search, "reward.target=choice(0,3)", "hydra.sweeper.sampler.seed=1")
    folder = rows.parent / "sweep"
    ended = jobs(folder)
    good = {job["folder"]: job["value"] for job in ended if job["error"] is None}
    assert len(ended) == 4
    assert 0 < len(good) < 4
    assert said.code == 2
    assert f"{4 - len(good)} of 4 jobs of the sweep failed" in said.err
    found = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    assert found["best_value"] == pytest.approx(max(good.values()))
    assert {name: pytest.approx(value) for name, value in good.items()} == {
        name: last_reward(Path(name)) for name in good
    }
    tried = {float(job["job"].partition("optimizer.lr=")[2].split()[0]) for job in ended}
    assert len(tried) == 4
    assert all(1e-5 <= rate <= 1e-2 for rate in tried)
    assert found["best_params"]["optimizer.lr"] in tried


@pytest.mark.filterwarnings("ignore:The ..declarative_base:DeprecationWarning")
def test_where_every_trial_fails_the_jobs_are_named(tiny: list[str], rows: Path, feedtune: Any) -> None:
    search = ["hparams_search=optuna", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=sweep"]
    said = feedtune("train", *tiny, *search, "optimized_metric=rollout/rewad")
    assert said.code == 2
    assert "optimized_metric: the run has no 'rollout/rewad'. Did you mean 'rollout/reward'?" in said.err
    assert said.err.endswith("2 of 2 jobs of the sweep failed\n")
    assert (rows.parent / "sweep" / "0" / "export" / "feedtune.json").is_file()  # the runs are not lost


@pytest.mark.slow
def test_the_joblib_launcher_runs_jobs_side_by_side(tiny: list[str], rows: Path, feedtune: Any) -> None:
    """In processes of their own, whose failures are named all the same; the runs are as in a plain sweep."""
    said = feedtune("train", *tiny, *FOUR, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert said.code == 2
    assert said.err.endswith("2 of 4 jobs of the sweep failed\n")
    run(rows.parent / "alone", [*tiny, "seed=1", "reward.target=3"])
    assert last_reward(rows.parent / "sweep" / "3") == last_reward(rows.parent / "alone")


@pytest.mark.parametrize(
    ("typed", "package"),
    [("hparams_search=optuna", "hydra-optuna-sweeper"), ("hydra/launcher=joblib", "hydra-joblib-launcher")],
)
def test_without_the_extra_it_is_named(
    typed: str, package: str, rows: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Hydra says it where nothing brings the option."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance().repo["hydra"]
    name = "sweeper" if "optuna" in typed else "launcher"
    option = "optuna" if "optuna" in typed else "joblib"
    compose_config()  # Hydra has looked for its plugins
    without = {key: value for key, value in store[name].items() if not key.startswith(option)}
    monkeypatch.setitem(store, name, without)
    said = feedtune("train", "task=jsonl", "task.path=rows.jsonl", typed)
    assert said.code == 2
    assert f"needs the package '{package}'" in said.err
    assert "pip install 'feedtune[sweeps]'" in said.err
    assert compose_config().seed == 0  # all else composes


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("hydra.sweeper.custom_search_space=os.system", "hydra.sweeper.custom_search_space: 'os.system'"),
        (
            "hydra.sweeper.sampler._target_=optuna.samplers.warnings.warn",
            "hydra.sweeper.sampler._target_: 'optuna.samplers.warnings.warn'",
        ),
    ],
)
def test_optuna_may_not_be_told_to_call_anything(typed: str, named: str, rows: Path, feedtune: Any) -> None:
    said = feedtune("train", "task=jsonl", "task.path=rows.jsonl", "hparams_search=optuna", typed)
    assert said.code == 2
    assert said.err.startswith(f"feedtune: {named} is not trusted")


# What a run returns


def test_a_run_whose_metric_is_unknown_is_complete_all_the_same(
    tiny: list[str], rows: Path, feedtune: Any
) -> None:
    said = feedtune("train", *tiny, "hydra.run.dir=run", "optimized_metric=rollout/lenght")
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert "optimized_metric: the run has no 'rollout/lenght'. Did you mean 'rollout/length'?" in said.err
    assert "loss/policy, " in said.err
    assert (rows.parent / "run" / "export" / "feedtune.json").is_file()


@pytest.mark.parametrize("metric", ["null", "rollout/length"])
def test_other_metrics_and_none(metric: str, tiny: list[str], rows: Path, feedtune: Any) -> None:
    typed = ["-m", "seed=0", "hydra.sweep.dir=sweep", f"optimized_metric={metric}"]
    assert feedtune("train", *tiny, *typed).code == 0
    [job] = jobs(rows.parent / "sweep")
    assert (job["value"] is None) == (metric == "null")


def test_an_algorithm_without_reward_need_not_say_so(tmp_path: Path) -> None:
    metrics = run(tmp_path / "run", overrides(write_rows(tmp_path), "ngram", "sft"))
    assert value_of("rollout/reward", metrics, tmp_path, wanted=False) is None
    with pytest.raises(UserError, match="the run has no 'rollout/reward'"):
        value_of("rollout/reward", metrics, tmp_path, wanted=True)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_nothing_to_compare(value: float) -> None:
    metrics = {"rollout/reward": value}
    kept = value_of("rollout/reward", metrics, Path("run"), wanted=False)
    assert kept is not None
    assert not math.isfinite(kept)
    with pytest.raises(UserError, match=r"^optimized_metric: rollout/reward is (nan|inf) in the last epoch"):
        value_of("rollout/reward", metrics, Path("run"), wanted=True)
    with pytest.raises(UserError, match=r"^optimized_metric: null, but a sweep"):
        value_of(None, metrics, Path("run"), wanted=True)


def test_a_metric_that_nothing_measures_is_refused_before_training(
    tiny: list[str], rows: Path, feedtune: Any
) -> None:
    said = feedtune("train", *tiny, "hydra.run.dir=run", "optimized_metric=eval/reward")
    assert said.code == 2
    assert "optimized_metric: eval/reward is measured while training only with evaluation.every" in said.err
    assert not (rows.parent / "run" / "metrics.csv").exists()
    more = ["optimized_metric=eval/reward", "evaluation.every=1", "evaluation.rows=2"]
    assert feedtune("train", *tiny, "hydra.run.dir=run", *more).code == 0
