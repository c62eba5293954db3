"""docs/plugins.md from its first line to its last: from nothing to an installed, certified plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

import plugins_page
from distributions.environments import Environment, wheel

SMALL = ["backbone.embed_size=16", "backbone.hidden_size=16", "backbone.layers=1", "report=false"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_works_in_its_order(environment: Environment, tmp_path: Path) -> None:
    plugins_page.write(tmp_path, below="my_plugins")
    seen = set()
    for line in plugins_page.commands():
        seen.add(line[0])
        match line:
            case ["mkdir", *_]:
                environment.run(*line, cwd=tmp_path)
                plugins_page.write(tmp_path, below="questions")
            case ["pip", "install", "-e", folder]:
                environment.install("-e", tmp_path / folder)
            case ["python", "-m", "pip", "install", "build"]:
                pass  # it is here, in the environment that runs the tests
            case ["python", "-m", "build", folder]:
                (tmp_path / "dist").mkdir()
                assert wheel(tmp_path / folder, tmp_path / "dist").name.startswith("questions-0.1.0")
            case ["pytest", folder]:
                environment.run("python", "-m", "pytest", "-q", folder, cwd=tmp_path)
            case ["feedtune", "train", *_] if "backbone=gru" in line:
                environment.run(*line, *SMALL, cwd=tmp_path)
            case _:
                environment.run(*line, cwd=tmp_path)
    assert seen == {"feedtune", "mkdir", "cp", "mv", "pip", "pytest", "python"}
    assert (tmp_path / "run" / "metrics.csv").is_file()
    assert (tmp_path / "sweep" / "1" / "metrics.csv").is_file()
