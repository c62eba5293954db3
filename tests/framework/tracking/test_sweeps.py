"""A sweep of W&B: its agent calls `feedtune train` with overrides; its environment says which run that is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from small_runs import overrides, write_rows
from wandb_files import metrics_of, offline_run

PAGE = Path(__file__).parents[3] / "docs" / "tracking.md"


@pytest.fixture
def new_session(no_account: None) -> Iterator[None]:
    """W&B reads its environment once in a process."""
    wandb.teardown()
    yield
    wandb.teardown()


def documented() -> dict[str, Any]:
    """The sweep.yaml of docs/tracking.md."""
    [text] = re.findall(r"```yaml\n(# sweep\.yaml.*?)```", PAGE.read_text(), re.DOTALL)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def command_of(sweep: dict[str, Any], chosen: dict[str, Any]) -> list[str]:
    """What an agent calls with these values, as `wandb.wandb_agent` puts it together."""
    given = {"args": {name: {"value": value} for name, value in chosen.items()}}
    variables = {"env": ["/usr/bin/env"], **create_sweep_command_args(given)}
    found: list[str] = []
    for part in create_sweep_command(sweep["command"]):
        found += variables.get(part[2:-1], []) if part.startswith("${") else [part]
    return found


# W&B leaves the file with the sweep's values open.
@pytest.mark.filterwarnings(r"ignore:.*FileIO name='.*/config\.yaml':pytest.PytestUnraisableExceptionWarning")
def test_an_agents_run_is_the_sweeps_run(
    rows: Path, feedtune: Any, new_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documented sweep.yaml with values that its server could have chosen, on a tiny run."""
    sweep = documented()
    chosen = {"algorithm": "grpo", "optimizer.lr": 0.003, "collector.group_size": 4}
    assert set(chosen) == set(sweep["parameters"])
    assert {"grpo", 4} <= {value for one in sweep["parameters"].values() for value in one.get("values", [])}
    parameters = {name: {"value": value} for name, value in chosen.items()}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"wandb_version": 1, **parameters}))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    monkeypatch.setenv("WANDB_RUN_ID", "trial456")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "config.yaml"))
    env, program, *arguments = command_of(sweep, chosen)
    assert (env, program) == ("/usr/bin/env", "feedtune")
    tiny = overrides(write_rows(tmp_path), "lstm", "grpo", "report=false", "hydra.run.dir=run")
    fixed = [one for one in tiny if one.partition("=")[0] not in chosen]
    command, *typed = arguments
    said = feedtune(command, *fixed, *typed)
    assert said.code == 0, said.err
    assert "ignor" not in (said.out + said.err).lower()  # W&B ignores nothing that it was told
    found = offline_run(Path("run"))
    assert (found.run["run_id"], found.run["sweep_id"]) == ("trial456", "sweep123")
    assert Path("run/wandb_id.txt").read_text() == "trial456\n"
    assert {name: found.config[name] for name in chosen} == chosen
    assert found.config["values"]["optimizer"]["lr"] == 0.003
    assert found.config["backbone"] == "lstm"
    metric = sweep["metric"]["name"]
    assert found.metrics()[-1][metric] == metrics_of(Path("run"))[-1][metric]


def test_a_trial_that_is_resumed_stays_itself(
    no_account: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`feedtune resume` runs without the agent's environment."""
    from feedtune.tracking.loggers import wandb_logger

    monkeypatch.setenv("WANDB_RUN_ID", "trial789")
    wandb_logger(mode="offline", folder=str(tmp_path / "run"))
    monkeypatch.delenv("WANDB_RUN_ID")
    again = wandb_logger(mode="offline", folder=str(tmp_path / "run"))
    assert again.version == "trial789"
