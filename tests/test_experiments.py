"""Every experiment that ships runs, one minibatch deep."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_runs import overrides, run, write_rows

EXPERIMENTS = sorted(path.stem for path in (Path(__file__).parents[1] / "conf" / "experiment").glob("*.yaml"))

SMALLER = {
    "quickstart_pretrain": ["task.limit=300"],
    "quickstart_ppo": ["task.limit=300", "collector.responses=8"],
}
"""Less data and fewer responses; everything else as it ships."""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder in place of a model from the hub."""
    folder = tmp_path_factory.mktemp("tiny")
    run(folder / "run", overrides(write_rows(folder), "transformer", "sft", "backbone.context_length=256"))
    return folder / "run" / "export"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs(experiment: str, tiny_model: Path, tmp_path: Path) -> None:
    chosen = [f"experiment={experiment}", "trainer.fast_dev_run=true", *SMALLER.get(experiment, [])]
    if experiment == "smollm2":
        chosen += [f"backbone.name={tiny_model}", "collector.responses=16", "collector.max_new_tokens=4"]
    run(tmp_path, chosen)
    assert not (tmp_path / "metrics.csv").exists()  # a rehearsal leaves no files


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_opens_with_command_expectation_and_minutes(experiment: str) -> None:
    file = Path(__file__).parents[1] / "conf" / "experiment" / f"{experiment}.yaml"
    head = [
        line for line in file.read_text().partition("\ndefaults:")[0].splitlines() if line.startswith("# ")
    ]
    assert head[0] == "# @package _global_"
    assert head[1].startswith(f"# feedtune train experiment={experiment}")
    assert "Expect " in " ".join(head)
    assert " minutes on " in " ".join(head)
