"""`feedtune resume DIR`: from the newest checkpoint that is whole, as the run that it was or with --force."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from feedtune.checkpoints import listed, read_manifest
from feedtune.checkpoints.store import Draft
from feedtune.errors import UserError
from feedtune.runs.continuing import check_length
from small_runs import fingerprint, newest_state, overrides, run


@pytest.fixture
def finished(lstm_run: Path, tmp_path: Path) -> Path:
    """A run of two epochs with a checkpoint of each, that may be written into."""
    shutil.copytree(lstm_run, tmp_path / "run")
    return tmp_path / "run"


def data_of(folder: Path) -> Path:
    return Path(yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())["task"]["path"])


def epochs(folder: Path) -> list[str]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [row["epoch"] for row in csv.DictReader(file)]


def everything(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def edit(folder: Path, old: str, new: str) -> None:
    """Change the saved config by hand."""
    file = folder / ".hydra" / "config.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


# Damage


def test_a_damaged_checkpoint_costs_what_came_after_the_one_before(
    finished: Path, tmp_path: Path, feedtune: Any
) -> None:
    """The second epoch is made again, to the bit, and its row and samples are there once."""
    before = fingerprint(finished)
    first, second = listed(finished)
    state = bytearray((second / "state.ckpt").read_bytes())
    state[len(state) // 2] ^= 16
    (second / "state.ckpt").write_bytes(state)
    said = feedtune("resume", str(finished))
    assert said.code == 0
    named = [line for line in said.err.splitlines() if line.startswith("feedtune: ")]
    assert named == [
        f"feedtune: {second}: state.ckpt is damaged: its sha256 is not the manifest's; trying {first.name}"
    ]
    assert fingerprint(finished) == before
    assert epochs(finished) == ["0", "1"]


def test_where_no_checkpoint_is_whole_that_is_said(finished: Path, feedtune: Any) -> None:
    for folder in listed(finished):
        (folder / "manifest.json").write_text("{")
    said = feedtune("resume", str(finished))
    assert said.code == 2
    assert said.err.splitlines()[-1] == (
        f"feedtune: {finished / 'checkpoints'}: none of its 2 checkpoints is whole: start the run again"
    )


def test_a_run_of_an_earlier_feedtune_is_named(finished: Path, feedtune: Any) -> None:
    shutil.rmtree(finished / "checkpoints")
    (finished / "checkpoints").mkdir()
    (finished / "checkpoints" / "last.ckpt").touch()
    said = feedtune("resume", str(finished))
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "last.ckpt: written by a feedtune before 0.1" in said.err


@pytest.mark.parametrize("lost", ["export", "export/feedtune.json", "export/tokenizer.json", "report.html"])
def test_what_a_kill_at_the_end_took_is_written_again(lost: str, finished: Path, feedtune: Any) -> None:
    """The tokenizer is that of the checkpoint: a half-written export is in nobody's way."""
    edit(finished, "report: false", "report: true")
    before = fingerprint(finished)
    path = finished / lost
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.write_text("{")
    assert feedtune("resume", str(finished)).code == 0
    assert fingerprint(finished) == before
    assert feedtune("evaluate", str(finished), "evaluation.rows=2").code == 0
    assert (finished / "report.html").is_file()


@pytest.mark.parametrize("command", ["resume", "train"])
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(
    command: str, finished: Path, feedtune: Any
) -> None:
    """A row, samples and half of a checkpoint are there: nothing to go on from, and nothing to protect."""
    before = fingerprint(finished)
    shutil.rmtree(finished / "export")
    first, second = listed(finished)
    first.rename(finished / "checkpoints" / ".partial-0")
    shutil.rmtree(second)
    chosen = overrides(data_of(finished), "lstm", "ppo", "report=false", f"hydra.run.dir={finished}")
    arguments = {"resume": [str(finished)], "train": chosen}[command]
    assert feedtune(command, *arguments).code == 0
    assert fingerprint(finished) == before
    assert not list((finished / "checkpoints").glob(".partial-*"))
    assert epochs(finished) == ["0", "1"]


# Longer


def test_a_run_is_made_longer_and_stays_so(finished: Path, tmp_path: Path, feedtune: Any) -> None:
    assert feedtune("resume", str(finished), "trainer.max_epochs=3").code == 0
    run(tmp_path / "long", overrides(data_of(finished), "lstm", "ppo", "trainer.max_epochs=3"))
    assert fingerprint(finished) == fingerprint(tmp_path / "long")
    saved = yaml.safe_load((finished / ".hydra" / "config.yaml").read_text())
    assert saved["trainer"]["max_epochs"] == 3
    assert feedtune("resume", str(finished)).out.startswith("the run was complete already\n")


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("trainer.max_epoch=3", "trainer.max_epoch: the run has no such key. Did you mean 'max_epochs'?"),
        ("tainer.max_epochs=3", "tainer.max_epochs: the run has no such key."),
        ("+trainer.x=3", "+trainer.x=3: expected key=value, with a key that the run has and one value"),
        ("~trainer.max_epochs", "~trainer.max_epochs: expected key=value"),
        ("trainer.max_epochs=3,4", "trainer.max_epochs=3,4: expected key=value"),
        ("optimizer=sgd", "optimizer=sgd: optimizer is no single value; set one of its keys"),
        ("trainer.max_epochs=many", "trainer.max_epochs: expected a whole number or null, got 'many'"),
        ("trainer.max_epochs", "'trainer.max_epochs': expected key=value"),
    ],
)
def test_overrides_that_cannot_be_meant(typed: str, says: str, finished: Path, feedtune: Any) -> None:
    before = everything(finished)
    said = feedtune("resume", str(finished), typed)
    assert (said.code, said.err.splitlines()[-1][: len(says) + 10]) == (2, f"feedtune: {says}")
    assert everything(finished) == before


def test_a_run_is_not_made_shorter_than_it_is(lstm_run: Path, feedtune: Any) -> None:
    """Two epochs of two steps each are done."""
    state = newest_state(lstm_run)
    steps = read_manifest(state.parent)["step"]
    before = everything(lstm_run)
    said = feedtune("resume", str(lstm_run), "trainer.max_epochs=1", f"trainer.max_steps={steps - 1}")
    assert (said.code, said.err.splitlines()) == (
        2,
        [
            "feedtune: trainer.max_epochs: expected at least 2, or -1 for no such limit, got 1: "
            "the run has done 2 epochs already",
            f"trainer.max_steps: expected at least {steps}, or -1 for no such limit, got {steps - 1}: "
            f"the run has done {steps} optimiser steps already",
        ],
    )
    assert everything(lstm_run) == before


@pytest.mark.parametrize(("length", "fits"), [(1, False), (2, True), (-1, True), (None, True)])
def test_an_epoch_that_has_begun_counts_too(length: int | None, fits: bool, tmp_path: Path) -> None:
    """One epoch and two of four steps."""
    draft = Draft(tmp_path)
    draft.add("state.ckpt", b"")
    folder = draft.publish("step-00000006", {"epoch": 1, "step": 6, "ends_epoch": False})
    trainer = {"max_epochs": length, "max_steps": 6}
    if fits:
        check_length(trainer, folder / "state.ckpt")
        return
    with pytest.raises(
        UserError, match=r"max_epochs: .* at least 2.* has done 1 epoch and a part of the next"
    ):
        check_length(trainer, folder / "state.ckpt")


# Differences


def rewrite_rows(folder: Path) -> None:
    rows = [json.loads(line) for line in data_of(folder).read_text().splitlines()]
    data = folder.parent / "other.jsonl"
    data.write_text("".join(json.dumps({**row, "prompt": row["prompt"] + " "}) + "\n" for row in rows))
    edit(folder, str(data_of(folder)), str(data))


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (
            lambda folder: edit(folder, "lr: 0.001", "lr: 0.5"),
            ["  optimizer.lr: 0.001 when the checkpoint was written, 0.5 now"],
        ),
        (
            rewrite_rows,
            ["  task.path: ", "  task: its "],
        ),
    ],
)
def test_a_run_that_is_not_what_it_was_asks_for_force(
    change: Callable[[Path], None], lines: list[str], finished: Path, feedtune: Any
) -> None:
    change(finished)
    before = everything(finished)
    said = feedtune("resume", str(finished), "trainer.max_epochs=3")
    assert said.code == 2
    first, *named, last = said.err.splitlines()
    assert first == f"feedtune: {newest_state(finished).parent}: the run would not go on as it was:"
    assert len(named) == len(lines)
    assert all(line.startswith(begin) for line, begin in zip(named, lines, strict=True))
    assert last == "add --force to go on all the same; it will not end as a run that was never stopped"
    assert everything(finished) == before

    said = feedtune("resume", str(finished), "trainer.max_epochs=3", "--force")
    assert said.code == 0
    assert [line for line in said.err.splitlines() if line.startswith("feedtune: --force, although ")] != []
    assert epochs(finished) == ["0", "1", "2"]
    assert feedtune("resume", str(finished)).code == 0  # from here on, this is the run


def test_a_data_file_that_changed_in_its_place_is_noticed(rows: Path, feedtune: Any) -> None:
    """A row in which one answer is another, as many as before."""
    chosen = overrides(Path("rows.jsonl"), "lstm", "sft", "task.eval_fraction=0.0", "report=false")
    assert feedtune("train", *chosen, "hydra.run.dir=run").code == 0
    text = rows.read_text()
    assert '"reference": "8"' in text
    rows.write_text(text.replace('"reference": "8"', '"reference": "7"'))
    said = feedtune("resume", "run")
    assert said.code == 2
    assert said.err.splitlines()[1:-1] == [
        "  task: its 25 training rows are not the 25 with which the checkpoint was written"
    ]
    rows.write_text(text)
    assert feedtune("resume", "run").code == 0


def test_an_override_may_need_force_too(finished: Path, feedtune: Any) -> None:
    before = everything(finished)
    said = feedtune("resume", str(finished), "optimizer.lr=0.5")
    assert said.code == 2
    assert "  optimizer.lr: 0.001 when the checkpoint was written, 0.5 now" in said.err.splitlines()
    assert everything(finished) == before


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (
            "backbone.hidden_size=32",
            "state.ckpt: its state does not fit this run: Error(s) in loading state_dict",
        ),
        ("trainer.devices=2", "processes that train together: 1 when it was written, 2 now."),
    ],
)
def test_what_force_cannot_do(typed: str, says: str, finished: Path, feedtune: Any) -> None:
    said = feedtune("resume", str(finished), typed, "trainer.max_epochs=3", "--force")
    assert said.code == 2
    assert says in said.err.splitlines()[-1]
    assert "Traceback" not in said.err
