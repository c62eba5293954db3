"""Running the scripts of this folder, one process at a time.

Standard library alone, as is all that a starting process imports: see `measuring.peak_gb`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def note(text: str) -> None:
    """A line of progress, on stderr with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def run(
    script: str,
    *arguments: object,
    python: str = sys.executable,
    variables: Mapping[str, str] | None = None,
) -> str:
    """What a script of this folder prints; ends the benchmark with its last words if it fails.

    Args:
        script: name of the file.
        arguments: of its command line.
        python: the interpreter, which brings its packages.
        variables: of the environment, beside those that are set.
    """
    command = [python, str(HERE / script), *map(str, arguments)]
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise SystemExit(f"failed with exit code {done.returncode}: {' '.join(command)}\n{last}")
    return done.stdout


def measure(
    script: str,
    *arguments: object,
    python: str = sys.executable,
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The JSON object in the last line that a script prints; see `run`."""
    printed = run(script, *arguments, python=python, variables=variables)
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found
