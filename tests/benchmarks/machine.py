"""What a benchmark ran on. Standard library alone."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("feedtune", "trl", "torch", "transformers", "lightning", "peft", "accelerate")
ASK = f"""
import json, importlib.metadata as found, torch
def version(name):
    try:
        return found.version(name)
    except found.PackageNotFoundError:
        return None
versions = {{name: version(name) for name in {PACKAGES!r}}}
print(json.dumps({{**{{k: v for k, v in versions.items() if v}}, "threads": torch.get_num_threads()}}))
"""


def environment(python: str = sys.executable) -> dict[str, Any]:
    """Versions of the packages that a Python has, and torch's threads there."""
    done = subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory and system."""
    memory = _entry(Path("/proc/meminfo"), "MemTotal") or "0 kB"
    return {
        "cpu": _entry(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "bf16_instructions": "avx512_bf16" in Path("/proc/cpuinfo").read_text(),
        "memory_gb": round(int(memory.split()[0]) * 1024 / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _entry(path: Path, name: str) -> str | None:
    """The value of the first line `name : value`."""
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
