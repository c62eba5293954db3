"""metrics.csv and samples.jsonl of runs that were killed while they were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedtune.callbacks.files import read_metrics
from feedtune.checkpoints import listed
from feedtune.checkpoints.store import remove
from feedtune.config.compose import compose_config
from feedtune.errors import UserError
from feedtune.runs.training import train
from small_runs import ROWS, fingerprint, newest_state, overrides, run, write_rows

CUTS = {
    "whole": lambda text: text,  # killed between the files and the checkpoint
    "half a line": lambda text: text[:-20],
    "half a character": lambda text: (
        text.rstrip() + '\n{"epoch": 1, "prompt": "\udcc3'
    ),  # the first byte of two
    "nothing of the last epoch": lambda text: text[: text.index('{"epoch": 1')],
}


@pytest.mark.parametrize("case", CUTS)
def test_what_a_kill_left_of_the_last_epoch_is_cut_off(case: str, tmp_path: Path) -> None:
    """Both epochs are in the files, or half of the second; the newest checkpoint is of the first."""
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo", "optimizer.lr=0.01")
    folder = tmp_path / "run"
    run(folder, chosen)
    expected = fingerprint(folder)
    remove(listed(folder)[-1])
    samples = folder / "samples.jsonl"
    cut = CUTS[case](samples.read_text(encoding="utf-8"))
    samples.write_text(cut, encoding="utf-8", errors="surrogateescape")
    train(compose_config(chosen), folder, newest_state(folder))
    assert fingerprint(folder) == expected


def test_a_response_with_a_line_separator_stays_one_line(tmp_path: Path) -> None:
    """U+2028 ends a line for Python's `splitlines`, and JSON lets it stand as it is."""
    rows = [{**row, "prompt": f"{row['prompt']}\u2028"} for row in ROWS]
    chosen = overrides(write_rows(tmp_path, rows), "lstm", "reinforce")
    run(tmp_path / "run", chosen)
    run(tmp_path / "long", [*chosen, "trainer.max_epochs=3"])
    longer = compose_config([*chosen, "trainer.max_epochs=3"])
    train(longer, tmp_path / "run", newest_state(tmp_path / "run"))
    assert "\u2028" in (tmp_path / "run" / "samples.jsonl").read_text(encoding="utf-8")
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "long")


@pytest.mark.parametrize("text", ["epoch,loss\nx,1\n", "loss\n1\n", "epoch\n1,2\n,\n"])
def test_a_table_that_is_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"metrics\.csv: damaged\. Remove it to go on without the rows"):
        read_metrics(path, 5)
