"""Virtual environments, wheels, and commands that are called in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
THEIRS = ROOT / "tests" / "third_party_plugin"
SESSION = Path(__file__).with_name("session.py")


@dataclass(frozen=True)
class Said:
    """What a command left behind in the terminal."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def path(self) -> str:
        return f"{self.folder / 'bin'}:{os.environ['PATH']}"

    def run(self, *command: str | Path, cwd: Path, more: Mapping[str, str] | None = None) -> str:
        """What a command prints that has to succeed; nothing of this environment reaches it."""
        return run(list(command), cwd, {"PATH": self.path, **(more or {})})

    def session(self, commands: Sequence[Sequence[str]], cwd: Path) -> list[Said]:
        """What commands say that are given one after the other in one process (session.py)."""
        out = run([self.python, SESSION], cwd, {"PATH": self.path}, json.dumps(commands))
        return [Said(**one) for one in json.loads(out.splitlines()[-1])]

    def install(self, *what: str | Path) -> None:
        """Install wheels or folders as they are: what they ask for is there already."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "-q", "--no-compile"]
        run([*pip, "--no-deps", "--no-index", "--no-build-isolation", *what], self.folder)


def run(
    command: Sequence[str | Path],
    cwd: Path,
    more: Mapping[str, str] | None = None,
    told: str | None = None,
    limit: float = 280,
) -> str:
    """The output of a command that has to succeed within so many seconds; `told` is its standard input."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")
    clean = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**clean, "OMP_NUM_THREADS": "1", **(more or {})},
        input=told,
        capture_output=True,
        text=True,
        check=False,
        timeout=limit,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wheel(project: Path, folder: Path) -> Path:
    """Build a project's wheel into a folder of its own."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, project]
    run(build, folder)
    [built] = folder.glob("*.whl")
    return built
