"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

import feedtune
from feedtune.cli import COMMANDS
from feedtune.config.compose import compose_config
from learning.settings import SETTINGS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def _commands() -> list[list[str]]:
    """Every line that calls feedtune, as the shell would split it."""
    lines = [line.split("&&")[-1].strip() for block in _blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("feedtune")]


@pytest.mark.filterwarnings("ignore:.*litlogger.*", "ignore:.*does not have many workers.*")
def test_the_python_example_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = _blocks("python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 25
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    loaded = feedtune.load(tmp_path / "vowels")
    prompts = [loaded.codec.prompt({"prompt": f"say {word}: "}).tokens for word in ("yes", "no")]
    responses = feedtune.sample(
        loaded.policy,
        prompts,
        max_new_tokens=8,
        eos_ids=loaded.codec.eos_ids,
        generator=torch.Generator().manual_seed(0),
        group_size=32,
    )
    texts = [loaded.codec.response(r.tokens) for r in responses]
    vowels = sum(letter in "aeiou" for text in texts for letter in text) / len(texts)
    # Untrained, a uniform draw over some 20 characters says at most 8 x 5 / 20 = 2 vowels.
    assert vowels > 4


def test_every_command_in_the_readme_exists() -> None:
    named = {command[1] for command in _commands()}
    assert named <= set(COMMANDS)
    assert named >= {"quickstart", "train", "resume", "evaluate", "generate"}


TRAIN = [command for command in _commands() if command[1] == "train" and "--help" not in command]


@pytest.mark.parametrize("command", TRAIN, ids=" ".join)
def test_every_train_command_in_the_readme_composes(command: list[str]) -> None:
    overrides = [part for part in command[2:] if not part.startswith("-")]
    single = [part.split(",")[0] for part in overrides]  # of a sweep, the first job
    assert compose_config([part for part in single if not part.startswith("init_from")]) is not None


def test_the_matrix_names_every_option() -> None:
    for group in ("backbone", "collector", "reward", "task", "tokenizer", "trainer", "logger"):
        [row] = [line for line in README.splitlines() if line.startswith(f"| `{group}` |")]
        options = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
        missing = {option for option in options if f"`{option}`" not in row}
        assert not missing, f"README.md: the row {group} does not name {missing}"


def test_every_algorithm_has_a_line_and_a_page() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "algorithms").glob("*.md")} - {"README", "trl"}
    lines = set(re.findall(r"^\| \[(\w+)\]\(docs/algorithms/\1\.md\) \|", README, re.M))
    cards = {path.stem for path in (ROOT / "conf" / "algorithm").glob("*.yaml")}
    assert pages == lines == cards


def test_the_scores_are_those_that_the_learning_tests_measured() -> None:
    """The lower of two seeds, as it stands behind each setting; above what the test asks for."""
    source = (ROOT / "tests" / "learning" / "settings.py").read_text()
    for algorithm, row in SETTINGS.items():
        [line] = [one for one in README.splitlines() if one.startswith(f"| [{algorithm}](")]
        cells = [cell.strip() for cell in line.split("|")[3:-1]]
        for (backbone, setting), cell in zip(row.items(), cells, strict=True):
            if isinstance(setting, str):
                assert cell == "-"
                continue
            block = source[source.index(f'    "{algorithm}": {{') :]
            [first, second] = re.search(rf'"{backbone}": .*# ([\d.]+), ([\d.]+)', block).groups()  # type: ignore[union-attr]
            assert float(cell) == min(float(first), float(second)) >= setting.at_least


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
