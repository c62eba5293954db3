"""Checkpoints of two processes that train together (gloo): one writes, both hear how that went."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from feedtune.checkpoints import listed, read_manifest
from small_runs import fingerprint, overrides, write_rows

pytestmark = pytest.mark.slow

FULL_AT_6 = """
import os, resource, sys
from feedtune.checkpoints.saver import SaveCheckpoints
from feedtune.cli import main
save = SaveCheckpoints.save
def full(self, trainer, module, name=None):
    if trainer.global_step == 6 and trainer.is_global_zero and "train" in sys.argv:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    return save(self, trainer, module, name)
if "full" in os.environ["CASE"]:
    SaveCheckpoints.save = full
code = main(sys.argv[1:])
open(f"{os.environ['CASE']}_{os.environ.get('LOCAL_RANK', '0')}", "w").write(str(code))
sys.exit(code)
"""


def feedtune(folder: Path, case: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "wrapper.py").write_text(FULL_AT_6)
    return subprocess.run(
        [sys.executable, "wrapper.py", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CASE": case},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_full_disk_ends_both_and_both_go_on(tmp_path: Path) -> None:
    """Saved every two steps and every microsecond, on which the two have to agree; full at the sixth step."""
    data = write_rows(tmp_path)
    chosen = overrides(data, "lstm", "ppo", "buffer.passes=1", "buffer.minibatches=4", "report=false")
    chosen += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=2"]
    chosen += ["checkpoint.every_steps=2", "checkpoint.every_minutes=1e-8", "checkpoint.keep=99"]
    assert feedtune(tmp_path, "whole", "train", *chosen, "hydra.run.dir=whole").returncode == 0
    assert [read_manifest(one)["step"] for one in listed(tmp_path / "whole")] == [1, 2, 3, 4, 5, 6, 7, 8]

    done = feedtune(tmp_path, "full", "train", *chosen, "hydra.run.dir=run")
    assert done.returncode == 2, done.stderr
    assert "run/checkpoints: cannot be written: File too large; it takes" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "full_0").read_text() == "2"
    assert [read_manifest(one)["step"] for one in listed(tmp_path / "run")] == [1, 2, 3, 4, 5]

    alone = feedtune(tmp_path, "alone", "resume", "run", "trainer.devices=1", "--force")
    assert alone.returncode == 2
    assert "processes that train together: 2 when it was written, 1 now" in alone.stderr

    assert feedtune(tmp_path, "resumed", "resume", "run").returncode == 0
    assert [(tmp_path / f"resumed_{rank}").read_text() for rank in (0, 1)] == ["0", "0"]
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")
