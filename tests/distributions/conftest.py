"""An environment in which wheels are installed, without a network and without a second copy of torch."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest

from distributions.environments import ROOT, THEIRS, Environment, run, wheel


@pytest.fixture(scope="session")
def our_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """feedtune's wheel."""
    return wheel(ROOT, tmp_path_factory.mktemp("our_wheel"))


@pytest.fixture(scope="session")
def their_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of tests/third_party_plugin."""
    return wheel(THEIRS, tmp_path_factory.mktemp("their_wheel"))


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, our_wheel: Path) -> Environment:
    """feedtune from its wheel; torch and the others are lent by the environment that runs the tests.

    What it lends is listed in a .pth file, which makes importable what lies there, but not what is installed
    there in editable form: feedtune itself comes from the wheel.
    """
    made = Environment(tmp_path_factory.mktemp("environment"))
    run([sys.executable, "-m", "venv", "--without-pip", made.folder], made.folder)
    made.install(our_wheel)
    [site] = made.folder.glob("lib/python3*/site-packages")
    lent = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (site / "lent.pth").write_text("".join(f"{path}\n" for path in sorted(lent)))
    return made
