"""An error that is nobody's mistake: one line, a traceback in a file, and the state for a post-mortem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from feedtune.callbacks.postmortem import PostMortem
from feedtune.checkpoints import newest
from feedtune.errors import UserError
from feedtune.runs.failures import described, recorded
from kills.cases import CASES, TWO_PROCESSES
from kills.nursery import Nursery
from kills.stories import live

BROKEN = "a mistake\n of ours"


def test_an_error_while_training_leaves_its_state_and_its_traceback(nursery: Nursery, tmp_path: Path) -> None:
    """In the middle of the second epoch, in a run that is saved at each step."""
    case = CASES["ppo on lstm"]
    whole = live(nursery, case, tmp_path / "whole").ending()
    folder, run = tmp_path / "broken", tmp_path / "broken" / "run"
    life = nursery.run(
        *case.arguments(folder), log=folder / "log.txt", kill={"place": "begins", "n": 5, "error": BROKEN}
    )
    assert life.codes == (1,)
    postmortem = run / "checkpoints" / "postmortem"
    assert life.said().splitlines()[-3:] == [
        "feedtune: RuntimeError: a mistake of ours",
        f"the state at that moment, for a post-mortem, is in {postmortem}",
        f"the traceback is in {run / 'error.txt'}",
    ]
    assert "Traceback" not in life.said()
    text = (run / "error.txt").read_text()
    assert text.startswith("Traceback")
    assert "RuntimeError: a mistake\n of ours" in text
    assert torch.load(postmortem / "state.ckpt", weights_only=True)["global_step"] == 3
    # Nobody goes on from it.
    assert newest(run) == run / "checkpoints" / "step-00000003" / "state.ckpt"
    assert live(nursery, case, folder).ending() == whole


def test_where_all_processes_fail_in_a_step_the_state_is_saved(nursery: Nursery, tmp_path: Path) -> None:
    """Of both: each has its own place in the data and its own random generators."""
    life = nursery.run(
        *TWO_PROCESSES.arguments(tmp_path),
        log=tmp_path / "log.txt",
        kill={"place": "begins", "n": 2, "error": BROKEN},
        world=2,
    )
    assert life.codes == (1, 1)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert life.said().count(f"for a post-mortem, is in {checkpoints / 'postmortem'}\n") == 2
    state = torch.load(checkpoints / "postmortem" / "state.ckpt", weights_only=True)
    assert state["global_step"] == 2
    assert len(state["feedtune"]["ranks"]) == 2
    assert (tmp_path / "run" / "error.txt").read_text().startswith("Traceback")
    assert newest(tmp_path / "run") == checkpoints / "step-00000002" / "state.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_process_fails_alone_there_is_none(nursery: Nursery, tmp_path: Path, rank: int) -> None:
    """It waits for ten seconds, in vain; the other, which waits in its step, then fails too."""
    life = nursery.run(
        *TWO_PROCESSES.arguments(tmp_path),
        log=tmp_path / "log.txt",
        kill={"place": "begins", "n": 2, "error": BROKEN, "rank": rank},
        world=2,
    )
    assert life.codes == (1, 1)
    assert life.seconds < 60
    assert "RuntimeError: a mistake of ours" in life.said()
    assert "no state was saved for a post-mortem: not all processes failed in this step" in life.said()
    assert not (tmp_path / "run" / "checkpoints" / "postmortem").exists()


class Saver:
    """Stands for the disk: notes what is to be saved, or is full."""

    def __init__(self, full: bool = False) -> None:
        self.full, self.names = full, list[str]()

    def save(self, trainer: Any, module: Any, name: str) -> Path:
        if self.full:
            raise OSError(28, "No space left on device")
        self.names.append(name)
        return Path(name)


def _told(saver: Saver, error: BaseException, begun: bool = True) -> list[str]:
    """The notes that an error has after the callback heard of it."""
    callback = PostMortem(saver)  # type: ignore[arg-type]
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", barebones=True)
    if begun:
        callback.on_train_start(trainer, lightning.LightningModule())
    callback.on_exception(trainer, lightning.LightningModule(), error)
    return getattr(error, "__notes__", [])


@pytest.mark.parametrize(
    ("error", "begun", "saved"),
    [
        (ValueError("ours"), True, ["postmortem"]),
        (ValueError("ours"), False, []),  # there is nothing yet to look at
        (UserError("yours"), True, []),
        (KeyboardInterrupt(), True, []),
        (SystemExit(3), True, []),
    ],
)
def test_of_which_errors_the_state_is_saved(error: BaseException, begun: bool, saved: list[str]) -> None:
    saver = Saver()
    assert len(_told(saver, error, begun)) == len(saved)
    assert saver.names == saved


def test_a_full_disk_does_not_hide_the_error() -> None:
    assert _told(Saver(full=True), ValueError("ours")) == [
        "its state could not be saved for a post-mortem: [Errno 28] No space left on device"
    ]


def test_an_error_without_a_run_leaves_its_traceback_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    error = KeyError("lost")
    said = described(error).splitlines()
    [file] = tmp_path.glob("feedtune-error-*.txt")
    assert said == ["KeyError: 'lost'", f"the traceback is in {file}"]
    assert "KeyError: 'lost'" in file.read_text()


def test_where_the_traceback_cannot_be_written_the_error_is_still_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ours") as caught, recorded(tmp_path / "missing"):
        raise ValueError("ours")
    [note] = caught.value.__notes__
    assert note.startswith("the traceback is in no file: ")
    assert "No such file or directory" in note
    assert described(caught.value).startswith("ValueError: ours\nthe traceback is in no file")


def test_mistakes_of_the_user_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError), recorded(tmp_path):
        raise UserError("lr: expected a number")
    assert list(tmp_path.iterdir()) == []
