"""A wheel in a clean environment: what a user gets who never sees the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _run(command: list[str], cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_wheel_works_in_a_clean_environment(tmp_path: Path) -> None:
    _run([sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)], tmp_path)
    [wheel] = tmp_path.glob("feedtune-*.whl")
    _run([sys.executable, "-m", "venv", str(tmp_path / "venv")], tmp_path)
    binaries = tmp_path / "venv" / "bin"
    wanted = f"{wheel}[quickstart]"
    _run([str(binaries / "pip"), "install", "-q", "-c", str(ROOT / "constraints.txt"), wanted], tmp_path)

    listed = json.loads(_run([str(binaries / "feedtune"), "plugins", "--json"], tmp_path))["options"]
    found = {(row["group"], row["option"]) for row in listed}
    conf = ROOT / "conf"
    shipped = {(str(f.parent.relative_to(conf)), f.stem) for f in conf.glob("*/**/*.yaml")}
    assert found == shipped
    _run([str(binaries / "feedtune"), "train", "debug=fast", "backbone=gru", "task.limit=200"], tmp_path)
    _run(
        [
            str(binaries / "feedtune"),
            "train",
            "backbone=gru",
            "task.limit=200",
            "trainer.max_epochs=2",
            "collector.responses=8",
            "hydra.run.dir=run",
        ],
        tmp_path,
    )
    assert (tmp_path / "run" / "report.html").is_file()
    assert _run([str(binaries / "feedtune"), "generate", "run", "hello"], tmp_path) is not None
