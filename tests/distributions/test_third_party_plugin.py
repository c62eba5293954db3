"""A second distribution, installed from its wheel beside feedtune's, does all that ours does."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from distributions.environments import ROOT, THEIRS, Environment, Said, run

OPTIONS = {
    "algorithm": "awr",
    "backbone": "gated_convolution",
    "buffer": "recent",
    "collector": "demonstrated",
    "reward": "variety",
    "task": "reversal",
}
"""What tests/third_party_plugin offers: one of every kind."""

ALL_AT_ONCE = [
    *(f"{group}={option}" for group, option in OPTIONS.items()),
    "backbone.hidden_size=16",
    "backbone.layers=2",
    "collector.responses=8",
    "collector.max_new_tokens=4",
    "evaluation.rows=8",
    "callbacks=quiet",
    "trainer.max_epochs=2",
    "report=false",
]
SWEEP = ["reward=variety,length", "trainer.max_epochs=1", "hydra.sweep.dir=sweep"]

COMMANDS = {
    "tests": ["pytest", "-q", "-p", "no:cacheprovider", "tests"],
    "plugins": ["plugins", "--json"],
    "check": ["check", "atelier", "--json", "laws.json"],
    "help": ["train", "--help"],
    "wrong": ["train", "reward=varity"],
    "train": ["train", *ALL_AT_ONCE, "hydra.run.dir=run"],
    "resume": ["resume", "run", "trainer.max_epochs=3"],
    "generate": ["generate", "run", "a b c > "],
    "sweep": ["train", "-m", *ALL_AT_ONCE, *SWEEP],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are called: far from their source, with the tests that they ship."""
    made = tmp_path_factory.mktemp("morning")
    shutil.copytree(THEIRS / "tests", made / "tests")
    shutil.copy(THEIRS / "pyproject.toml", made)
    return made


@pytest.fixture(scope="module")
def morning(environment: Environment, their_wheel: Path, folder: Path) -> dict[str, Said]:
    """What every command said, in one process of the environment in which both are installed."""
    environment.install(their_wheel)
    said = environment.session(list(COMMANDS.values()), folder)
    return dict(zip(COMMANDS, said, strict=True))


def test_every_command_does_what_it_should(morning: dict[str, Said]) -> None:
    codes = {name: said.code for name, said in morning.items()}
    wanted = {name: 2 if name == "wrong" else 0 for name in COMMANDS}
    assert codes == wanted, {name: said for name, said in morning.items() if said.code != wanted[name]}


def test_it_is_listed_with_its_distribution_and_what_it_asks_for(morning: dict[str, Said]) -> None:
    listed = json.loads(morning["plugins"].out)
    [project] = [tomllib.loads((THEIRS / "pyproject.toml").read_text())["project"]]
    rows = [row for row in listed["options"] if row["distribution"] == "feedtune-atelier"]
    assert {row["group"]: row["option"] for row in rows} == OPTIONS
    assert {row["version"] for row in rows} == {project["version"]}
    assert not [problem for problem in listed["problems"] if "atelier" in str(problem)]


def test_each_is_certified(morning: dict[str, Said], folder: Path) -> None:
    assert "certified. Options: 6." in morning["check"].out
    assert json.loads((folder / "laws.json").read_text())["passed"] is True


def test_help_and_the_error_for_a_wrong_name_know_it(morning: dict[str, Said]) -> None:
    for option in OPTIONS.values():
        assert f"\n  {option} " in morning["help"].out
    assert "Did you mean 'variety'?" in morning["wrong"].err


def test_all_six_train_together_and_go_on_where_they_were(morning: dict[str, Said], folder: Path) -> None:
    with (folder / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3  # two epochs, and one after `feedtune resume`
    for name in (
        "loss/policy",
        "loss/value",
        "policy/weight",
        "rollout/demonstrated",
        "rollout/reward/distinct_2",
    ):
        assert all(row[name] for row in rows), name
    assert all(float(row["rollout/demonstrated"]) > 0 for row in rows)


def test_a_policy_of_theirs_speaks(morning: dict[str, Said]) -> None:
    assert set(morning["generate"].out.split()) - {"abcde"}, "nothing was said"


def test_their_reward_is_swept_beside_ours(folder: Path, morning: dict[str, Said]) -> None:
    chosen = [(folder / "sweep" / str(job) / ".hydra" / "overrides.yaml").read_text() for job in range(2)]
    assert "reward=variety" in chosen[0]
    assert "reward=length" in chosen[1]
    assert all((folder / "sweep" / str(job) / "metrics.csv").is_file() for job in range(2))


def test_its_wheel_holds_code_and_options_and_no_more(their_wheel: Path) -> None:
    with zipfile.ZipFile(their_wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    modules = [f"atelier/{name}.py" for name in ("__init__", *OPTIONS)]
    configs = [f"atelier/conf/{group}/{option}.yaml" for group, option in OPTIONS.items()]
    assert sorted(names) == sorted([*modules, *configs, "atelier/py.typed"])


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_both_wheels_work_in_a_clean_environment(our_wheel: Path, their_wheel: Path, tmp_path: Path) -> None:
    """As a user has it: pip resolves what both ask for, and nothing is lent."""
    run([sys.executable, "-m", "venv", tmp_path / "venv"], tmp_path)
    clean = Environment(tmp_path / "venv")
    pinned = ["-c", ROOT / "constraints.txt"]
    run([clean.python, "-m", "pip", "install", "-q", *pinned, our_wheel, their_wheel], tmp_path, limit=1200)
    rows = json.loads(clean.run("feedtune", "plugins", "--json", cwd=tmp_path))["options"]
    assert {row["group"]: row["option"] for row in rows if row["distribution"] != "feedtune"} == OPTIONS
    clean.run("feedtune", "train", *ALL_AT_ONCE, "hydra.run.dir=run", cwd=tmp_path)
    assert clean.run("feedtune", "generate", "run", "a b c > ", cwd=tmp_path).strip()
