"""The versions that were tested: pinned, installed, and none of those known to be malicious."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import installed

ROOT = Path(__file__).parents[1]


def test_what_is_installed_is_what_is_pinned() -> None:
    """Other distributions may be beside them here; in CI `python tests/installed.py` refuses those too."""
    assert len(installed.needed()) > 80
    assert installed.problems(strict=False) == []


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("lightning", ["2.6.2", "2.6.3"], "2.6.4"),  # malicious releases
        ("hydra-core", ["1.3.2", "1.3.7"], "1.3.8"),  # instantiated whatever a config named
    ],
)
def test_bad_releases_are_out_of_the_question(name: str, bad: list[str], good: str) -> None:
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    [asked] = [one for one in map(Requirement, lines) if one.name == name]
    assert not any(asked.specifier.contains(version) for version in bad)
    assert asked.specifier.contains(good)
    assert Version(installed.pinned()[name]) >= Version(good)
    assert asked.specifier.contains(installed.pinned()[name])


def test_every_range_of_ours_holds_the_pin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    asked = [one for one in map(Requirement, lines) if one.name != "feedtune"]
    pins = installed.pinned()
    wrong = [
        str(one) for one in asked if not one.specifier.contains(pins[installed.canonicalize_name(one.name)])
    ]
    assert wrong == []


def test_a_wrong_version_and_a_stranger_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    have = installed.installed()
    monkeypatch.setattr(installed, "installed", lambda: {**have, "lightning": "2.6.3", "left-pad": "1.0"})
    assert "lightning: 2.6.3 is installed, constraints.txt has " in installed.problems(strict=False)[0]
    assert "left-pad: 1.0 is installed, but not pinned" in installed.problems()
    monkeypatch.setattr(installed, "installed", lambda: {k: v for k, v in have.items() if k != "torch"})
    assert "torch: needed, but not installed" in installed.problems(strict=False)


def test_ci_checks_it() -> None:
    assert "python tests/installed.py" in (ROOT / ".ci" / "run").read_text()
