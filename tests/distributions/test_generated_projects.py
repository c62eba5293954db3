"""What `feedtune new-plugin` writes passes its own tests as it is written, and works once it is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from distributions.environments import Environment, Said, run
from feedtune.cli import main
from feedtune.templates import KINDS

NAMES = {kind: f"acme_{kind}" for kind in KINDS}
LONG = "my_rather_long_name_of_thirty1"


@pytest.fixture(scope="module")
def projects(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A project of every kind, as feedtune's wheel writes it."""
    # Not by the names of their packages: for pytest, which is called above them, these are others.
    above = tmp_path_factory.mktemp("projects")
    found = {kind: above / kind for kind in KINDS}
    commands = [["new-plugin", NAMES[kind], "--kind", kind, "--into", kind] for kind in KINDS]
    assert [said.code for said in environment.session(commands, above)] == [0] * len(KINDS)
    return found


@pytest.fixture(scope="module")
def installed(environment: Environment, projects: dict[str, Path]) -> Environment:
    """All of them installed, so that what is edited is what runs."""
    environment.install(*(part for project in projects.values() for part in ("-e", project)))
    return environment


@pytest.fixture(scope="module")
def said(installed: Environment, projects: dict[str, Path]) -> list[Said]:
    """Their tests in one process, and what feedtune says of them."""
    folder = next(iter(projects.values())).parent
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    how = ["-q", "-c", "pytest.ini", "--doctest-modules", "--import-mode=importlib", "-p", "no:cacheprovider"]
    rooms = [str(path) for kind, at in projects.items() for path in (at / "tests", at / NAMES[kind])]
    check = ["check", f"reward={NAMES['reward']}", f"buffer={NAMES['buffer']}"]
    return installed.session([["pytest", *how, *rooms], ["plugins", "--json"], check], folder)


def test_the_tests_of_every_kind_pass(said: list[Said]) -> None:
    assert said[0].code == 0, said[0].out


def test_each_option_is_listed(said: list[Said]) -> None:
    listed = json.loads(said[1].out)
    found = {(row["group"], row["option"]) for row in listed["options"]}
    assert found >= set(NAMES.items())
    assert not [problem for problem in listed["problems"] if "acme" in str(problem)]


@pytest.mark.parametrize("length", ["short", "long"])
def test_ruff_has_nothing_to_say(length: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the rules in its own pyproject; a long name breaks no line that a short one leaves whole."""
    for kind in KINDS:
        name = "a" if length == "short" else LONG
        assert main(["new-plugin", name, "--kind", kind, "--into", str(tmp_path / kind)]) == 0
    for command in (["check", "."], ["format", "--check", "."]):
        run([sys.executable, "-m", "ruff", *command, "--no-cache"], tmp_path)


def test_feedtune_certifies_them(said: list[Said]) -> None:
    """Two kinds here, and all of them below."""
    assert said[2].code == 0, said[2].out + said[2].err
    assert "certified. Options: 2." in said[2].out


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_what_it_says_comes_next_can_be_done(
    kind: str, installed: Environment, projects: dict[str, Path]
) -> None:
    """Each command by itself, in the folder of the project."""
    installed.run("python", "-m", "pytest", "-q", cwd=projects[kind])
    installed.run("feedtune", "check", NAMES[kind], cwd=projects[kind])
    command = KINDS[kind].try_it.format(name=NAMES[kind]).split()
    small = ["backbone=ngram"] if kind == "collector" else ["backbone.hidden_size=16"]
    installed.run(*command, *small, "debug=fast", cwd=projects[kind])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_mypy_has_nothing_to_say(installed: Environment, projects: dict[str, Path], tmp_path: Path) -> None:
    """By the rules in each pyproject. The first takes a minute or two, most of it for torch."""
    for project in projects.values():
        run([installed.python, "-m", "mypy", "--cache-dir", tmp_path], project, limit=900)
