"""`feedtune new-plugin` writes a project, or says in one line why it does not.

That what it writes works is the business of tests/distributions/test_generated_projects.py.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from feedtune.commands.new_plugin import LONGEST
from feedtune.config.discovery import own_conf
from feedtune.templates import COMMON, KINDS, rendered

VERSION = "0.1.0"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_writes_a_project_and_says_what_to_do_next(elsewhere: Path, feedtune: Any) -> None:
    said = feedtune("new-plugin", "acme", "--kind", "reward")
    assert (said.code, said.err) == (0, "")
    written = sorted(str(file.relative_to("acme")) for file in Path("acme").rglob("*") if file.is_file())
    assert written == [
        ".github/workflows/ci.yml",
        ".gitignore",
        "README.md",
        "acme/__init__.py",
        "acme/conf/reward/acme.yaml",
        "acme/py.typed",
        "acme/reward.py",
        "pyproject.toml",
        "tests/test_acme.py",
    ]
    assert [line.strip() for line in said.out.splitlines() if line.startswith("  ")] == [
        *written,
        "cd acme && pip install -e '.[test]'",
        "pytest && feedtune check acme",
        "feedtune train reward=acme",
    ]


def test_a_reward_is_under_ten_lines_of_python() -> None:
    source = rendered("acme", "reward", VERSION)["acme/reward.py"]
    [kind] = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    lines = set(range(kind.lineno, (kind.end_lineno or 0) + 1))
    for node in ast.walk(kind):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
            lines -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    text = source.splitlines()
    assert len([line for line in lines if text[line - 1].strip()]) < 10


@pytest.mark.parametrize("kind", KINDS)
def test_a_project_is_found_by_its_entry_point_and_asks_for_this_version(kind: str) -> None:
    files = rendered("acme", kind, VERSION)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["entry-points"]["feedtune.plugins"] == {"acme": "acme"}
    [asked] = map(Requirement, project["dependencies"])
    assert asked.name == "feedtune"
    assert Version(VERSION) in asked.specifier
    assert Version("0.2.0") not in asked.specifier  # whose contracts may be others
    option = yaml.safe_load(files[f"acme/conf/{kind}/acme.yaml"])
    assert option["_target_"] == f"acme.Acme{kind.capitalize()}"
    assert option["_target_"].rpartition(".")[2] in files["acme/__init__.py"]


@pytest.mark.parametrize("kind", KINDS)
def test_its_option_is_commented_as_ours_are(kind: str) -> None:
    """It opens with the command that uses it, and says of every value what it means."""
    lines = rendered("acme", kind, VERSION)[f"acme/conf/{kind}/acme.yaml"].splitlines()
    assert lines[0] == f"# {KINDS[kind].try_it.format(name='acme')}"
    values = lines[next(n for n, line in enumerate(lines) if line.startswith("_target_")) + 1 :]
    assert values
    assert all(" # " in line for line in values)


@pytest.mark.parametrize("kind", KINDS)
def test_its_ci_runs_what_its_readme_says(kind: str) -> None:
    files = rendered("acme", kind, VERSION)
    steps = yaml.safe_load(files[".github/workflows/ci.yml"])["jobs"]["test"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands[-1] == "feedtune check acme"
    for command in commands:
        assert command in files["README.md"].replace("&& mypy", "\nmypy")
    assert steps[1]["with"] == {"python-version": "${{ matrix.python }}"}
    assert not any(leftover in text for text in files.values() for leftover in ("{%", "{{ name", "{name}"))


def test_every_kind_has_templates_and_every_template_is_of_use() -> None:
    found = list(Path(str(resources.files("feedtune.templates"))).rglob("*.j2"))
    assert {file.parent.name for file in found} == {"common", *KINDS}
    own = {kind: len(rendered("acme", kind, VERSION)) - len(COMMON) for kind in KINDS}
    assert len(found) == len(COMMON) + sum(own.values())
    assert all((own_conf() / kind).is_dir() for kind in KINDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["acme"], ["required: --kind"]),
        (["--kind", "reward"], ["required: NAME"]),
        (
            ["acme", "--kind", "rewrad"],
            ["expected one of backbone,", "got 'rewrad'. Did you mean 'reward'?"],
        ),
        (["my-plugin", "--kind", "task"], ["NAME: 'my-plugin'", "lower-case", "Did you mean 'my_plugin'?"]),
        (["Acme", "--kind", "task"], ["NAME: 'Acme'", "Did you mean 'acme'?"]),
        (["2nd", "--kind", "task"], ["NAME: '2nd'", "Did you mean 'nd'?"]),
        (["zürich", "--kind", "task"], ["NAME: 'zürich'", "lower-case"]),
        (["..", "--kind", "task"], ["NAME: '..'", "characters at most.\n"]),
        (["a" * (LONGEST + 1), "--kind", "task"], [f"{LONGEST} characters at most. Did you mean 'aaa"]),
        (["lambda", "--kind", "task"], ["NAME: 'lambda' is a word of Python's own", "'lambda_task'"]),
        (
            ["tests", "--kind", "task"],
            ["'tests' is what a folder of the project is called", "'tests_task'"],
        ),
        (["json", "--kind", "reward"], ["a Python module 'json' already", "'json_reward'"]),
        (["torch", "--kind", "reward"], ["a Python module 'torch' already"]),
        (["length", "--kind", "reward"], ["NAME: reward=length is an option already", "'length_reward'"]),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    arguments: list[str], words: list[str], elsewhere: Path, feedtune: Any
) -> None:
    said = feedtune("new-plugin", *arguments)
    assert said.code == 2
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err
    assert list(elsewhere.iterdir()) == []


def test_a_name_of_another_kinds_option_is_free(feedtune: Any) -> None:
    assert feedtune("new-plugin", "length", "--kind", "task").code == 0


def test_a_folder_that_holds_something_stays_as_it_is(elsewhere: Path, feedtune: Any) -> None:
    for name in ("a", "b", "c", "d"):
        (elsewhere / "mine" / name).mkdir(parents=True)
    said = feedtune("new-plugin", "acme", "--kind", "task", "--into", "mine")
    assert said.code == 2
    assert "--into: mine is not empty (a, b, c and 1 more)" in said.err
    (elsewhere / "file").write_text("mine")
    assert "file is a file" in feedtune("new-plugin", "acme", "--kind", "task", "--into", "file").err
    assert (elsewhere / "file").read_text() == "mine"
    assert len(list((elsewhere / "mine").rglob("*"))) == 4


def test_an_empty_folder_and_a_fresh_repository_are_welcome(elsewhere: Path, feedtune: Any) -> None:
    (elsewhere / "acme" / ".git").mkdir(parents=True)  # a plain folder of this name hides no module
    assert feedtune("new-plugin", "acme", "--kind", "task").code == 0
    assert feedtune("new-plugin", "acme", "--kind", "task").code == 2  # it isn't empty any more
    assert (
        "cd 'my plugins/acme' &&"
        in feedtune("new-plugin", "acme", "--kind", "task", "--into", "my plugins/acme").out
    )


def test_a_folder_that_cannot_be_written_is_named(elsewhere: Path, feedtune: Any) -> None:
    (elsewhere / "file").touch()
    said = feedtune("new-plugin", "acme", "--kind", "task", "--into", "file/acme")
    assert said.code == 2
    assert "--into: file/acme" in said.err


def test_it_needs_no_torch(elsewhere: Path) -> None:
    """A project is there in half a second."""
    code = (
        "import sys; from feedtune.cli import main; main(['new-plugin', 'acme', '--kind', 'backbone']);"
        "print({'torch', 'hydra', 'lightning', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.endswith("set()\n")
