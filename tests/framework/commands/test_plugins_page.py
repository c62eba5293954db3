"""The first hour of docs/plugins.md, as it stands there.

All of the page, from its first command to its last: tests/distributions/test_plugins_page.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import plugins_page


def test_the_first_hour_leads_to_a_certified_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feedtune: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    plugins_page.write(tmp_path, below="my_plugins")
    told = [line[1:] for line in plugins_page.commands() if "plugins_path=./my_plugins" in line]
    assert [line[0] for line in told] == ["plugins", "check", "train"]
    for line in told[:2]:
        said = feedtune(*line)
        assert said.code == 0, said.err
        assert "questions" in said.out
    assert "certified. Options: 1." in said.out
    said = feedtune("train", "plugins_path=./my_plugins", "reward=questions", "reward.scale=high")
    assert said.code == 2
    assert "reward.scale" in said.err
    feedtune("plugins")  # without the folder: it is forgotten


def test_the_algorithm_of_the_page_is_certified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feedtune: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    plugins_page.write(tmp_path, below="ours")
    said = feedtune("check", "plugins_path=./ours")
    assert (said.code, "certified. Options: 1." in said.out) == (0, True), said.out
    feedtune("plugins")
