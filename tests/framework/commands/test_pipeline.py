"""`feedtune pipeline`: stages one after the other, gone on with where they stopped."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from feedtune.commands import quickstart, train
from feedtune.errors import Interrupted
from small_runs import overrides, write_rows

SECOND = ["algorithm=ppo", "task=jsonl", "reward=length", "callbacks=quiet", "trainer.max_epochs=1"]
SECOND += ["collector.responses=8", "collector.max_new_tokens=4"]


FOLDER = "rüns (1), a=b"
"""Nothing that Hydra would read without quotes."""


def listed(arguments: list[str]) -> str:
    """A list as Hydra reads it."""
    return "[" + ",".join(f'"{argument}"' for argument in arguments) + "]"


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages of the quickstart, each made tiny."""
    monkeypatch.chdir(tmp_path)
    data = write_rows(tmp_path)
    first = [one for one in overrides(data, "gru", "sft") if "{" not in one]
    second = [*SECOND, f"task.path={data}", "init_from='${dir}/pretrain'"]
    return [
        f"dir='{FOLDER}'",
        f"stages.pretrain.arguments={listed(first)}",
        f"stages.tune.arguments={listed(second)}",
    ]


def test_every_stage_runs_in_its_folder_and_is_not_repeated(
    stages: list[str], tmp_path: Path, feedtune: Any
) -> None:
    said = feedtune("pipeline", *stages)
    assert said.code == 0, said.err
    folder = tmp_path / FOLDER
    assert (folder / "report.html").is_file()
    found = json.loads((folder / "tune" / "evaluation.json").read_text())
    assert found["reference"] is not None
    assert [line for line in said.err.splitlines() if "1/3 pretrain" in line]
    assert "all stages: 0." in said.out

    before = (folder / "pretrain" / "metrics.csv").read_bytes()
    (folder / "tune" / "export" / "feedtune.json").unlink()  # as if it had been killed before its end
    again = feedtune("pipeline", *stages)
    assert again.code == 0, again.err
    assert f"{FOLDER}/pretrain: complete already" in again.out
    assert "the run was complete already" in again.out  # resumed from its last checkpoint
    assert (folder / "pretrain" / "metrics.csv").read_bytes() == before
    assert (folder / "tune" / "export" / "feedtune.json").is_file()


def test_without_matplotlib_there_is_no_report(
    stages: list[str], tmp_path: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = feedtune("pipeline", *stages, "~stages.tune", "~stages.evaluate")
    assert said.code == 0, said.err
    assert "report: report.html was not written" in said.out
    assert "pip install 'feedtune[report]'" in said.out
    assert "all stages" in said.out


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("pipeline=nowhere", ["pipeline=nowhere: there is no such option", "quickstart"]),
        ("frob=1", ["frob: there is no such key in the config", "dir, name, stages"]),
        ("dir=[", ["'dir=['"]),
        ("stages.tune.command=tarin", ["stages.tune.command", "'tarin'", "Did you mean 'train'?"]),
        (
            "stages.tune.arguments=seed",
            ["stages.tune.arguments: expected a list, each entry text, got 'seed'"],
        ),
        ('stages.tune.arguments=["algorithm=pp0"]', ["stages.tune: algorithm=pp0: there is no such option"]),
    ],
)
def test_a_mistake_in_the_last_stage_shows_before_the_first_has_run(
    typed: str, words: list[str], stages: list[str], tmp_path: Path, feedtune: Any
) -> None:
    said = feedtune("pipeline", *stages, typed)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert [word for word in words if word not in said.err] == [], said.err
    assert not (tmp_path / FOLDER).exists()


def test_the_mistakes_of_all_stages_show_at_once(stages: list[str], tmp_path: Path, feedtune: Any) -> None:
    more = [
        'stages.pretrain.arguments=["optimizer.lr=-1","scheduler.warmup=x"]',
        "stages.evaluate.command=evalute",
    ]
    said = feedtune("pipeline", *stages, *more)
    assert (said.code, said.err.count("\n")) == (2, 3)
    assert said.err.splitlines() == [
        "feedtune: stages.pretrain: scheduler.warmup: expected a number, got 'x'",
        "stages.pretrain: optimizer.lr: Invalid learning rate: -1",
        "stages.evaluate.command: expected one of train, evaluate, export, report, feedback, got 'evalute'. "
        "Did you mean 'evaluate'?",
    ]
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_mistakes_of_stages_that_do_not_train_show_before_the_first(
    stages: list[str], more: tuple[str, ...], tmp_path: Path, feedtune: Any
) -> None:
    """Of each command one: a key, a folder that no stage makes, a flag, and the name of a page."""
    tune = [*SECOND, "task.path=rows.jsonl", "init_from=${dir}/pretrian"]
    typed = [
        "dir=all",
        stages[1],
        f"stages.tune.arguments={listed(tune)}",
        f"stages.evaluate.arguments={listed(['${dir}/tuen', 'evaluation.rowz=8'])}",
        '+stages.again={command: evaluate, arguments: ["${dir}/tune", "reward.targte=3", "optimizer.lr=1"]}',
        "+stages.more={command: evaluate, "
        'arguments: ["${dir}/tune", "reward.targte=3", "evaluation.rows=0"]}',
        '+stages.folder={command: export, arguments: ["${dir}/tune", "${dir}/model", "--frob"]}',
        '+stages.late={command: train, arguments: ["reward=length", "init_from=${dir}/model"]}',
        '+stages.page={command: report, argumets: [], arguments: ["${dir}/tune", "--out", "page.pdf"]}',
    ]
    said = feedtune("pipeline", *typed, *more)
    nowhere = "there is no such folder, and no stage before makes it. Did you mean"
    begins = [
        f"feedtune: stages.tune: init_from: all/pretrian: {nowhere} 'all/pretrain'?",
        f"stages.evaluate: DIR: all/tuen: {nowhere} 'all/tune'?",
        "stages.evaluate: evaluation.rowz: there is no such key in 'evaluation'. Did you mean 'rows'?",
        "stages.again: optimizer.lr=1: evaluation uses evaluation, reward, ",
        "stages.more: reward.targte: there is no such key in 'reward'. Did you mean 'target'?",
        "stages.more: evaluation.rows: expected at least 1, got 0",
        "stages.folder: --frob: there is no such flag; see feedtune export --help",
        "stages.page.argumets: there is no such key. Did you mean 'arguments'?",
        "stages.page: --out: expected a name that ends in .html, got 'page.pdf'",
    ]
    found = said.err.splitlines()
    assert (said.code, said.out, len(found)) == (2, "", len(begins)), said.err
    assert [line for line, begin in zip(found, begins, strict=True) if not line.startswith(begin)] == []
    assert not (tmp_path / "all").exists()


def test_a_dry_run_says_what_each_stage_would_do(stages: list[str], tmp_path: Path, feedtune: Any) -> None:
    said = feedtune("pipeline", *stages, "--dry-run")
    assert said.code == 0, said.err
    states = [line.partition(": ")[0] for line in said.out.splitlines()]
    assert states == ["pretrain (to do)", "tune (to do)", "evaluate (to do)"]
    assert not (tmp_path / FOLDER).exists()
    record = tmp_path / FOLDER / "pretrain" / "export" / "feedtune.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    said = feedtune("pipeline", *stages, "--dry-run")
    assert said.out.startswith("pretrain (complete): feedtune train algorithm=sft ")
    assert shlex.split(said.out.splitlines()[2])[-1] == f"{FOLDER}/tune"


def test_a_stage_can_export_and_report_and_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feedtune: Any
) -> None:
    """What a stage made is named by `${dir}/NAME` in the ones after it."""
    monkeypatch.chdir(tmp_path)
    first = [one for one in overrides(write_rows(tmp_path), "transformer", "sft") if "{" not in one]
    typed = [
        "dir=all",
        f"stages={{tune: {{command: train, arguments: {listed(first)}}}, "
        'folder: {command: export, arguments: ["${dir}/tune", "${dir}/model"]}, '
        'page: {command: report, arguments: ["${dir}/tune", "--out", "${dir}/page.html"]}}',
    ]
    typed = ["~stages", f"+{typed[1]}", typed[0]]
    said = feedtune("pipeline", *typed)
    assert said.code == 0, said.err
    assert (tmp_path / "all" / "model" / "config.json").is_file()
    assert (tmp_path / "all" / "page.html").is_file()
    again = feedtune("pipeline", *typed)
    assert again.code == 0, again.err
    assert "all/tune: complete already\nall/model: complete already\n" in again.out


def test_a_stage_that_fails_stops_the_pipeline(stages: list[str], tmp_path: Path, feedtune: Any) -> None:
    shutil.move(tmp_path / "rows.jsonl", tmp_path / "elsewhere.jsonl")
    said = feedtune("pipeline", *stages)
    assert said.code == 2
    assert "task.path: no file or folder" in said.err
    assert not (tmp_path / FOLDER / "tune").exists()


def test_quickstart_is_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from feedtune.commands import pipeline, quickstart

    asked: list[Any] = []
    monkeypatch.setattr(pipeline, "main", lambda arguments: asked.append(arguments) or 0)
    assert quickstart.main(["seed=3"]) == 0
    assert asked == [["pipeline=quickstart", "seed=3"]]


def test_quickstart_names_its_extra_before_it_starts(
    tmp_path: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "vaderSentiment", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = feedtune("quickstart")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "needs matplotlib, vaderSentiment" in said.err
    assert "pip install 'feedtune[quickstart]'" in said.err
    assert list(tmp_path.iterdir()) == []


def test_what_quickstart_needs_is_what_its_extra_brings() -> None:
    """The extra may be made of extras, whose packages the metadata of the distribution names."""
    named = [one for one in map(Requirement, requires("feedtune") or []) if one.marker]

    def brought(extra: str) -> set[str]:
        found = [one for one in named if one.marker and one.marker.evaluate({"extra": extra})]
        inner = [brought(name) for one in found if one.name == "feedtune" for name in one.extras]
        return {one.name for one in found if one.name != "feedtune"}.union(*inner)

    assert {name.lower() for name in brought("quickstart")} == {
        name.lower() for name in quickstart.NEEDED.values()
    }


def test_quickstart_has_help_of_its_own(feedtune: Any) -> None:
    said = feedtune("quickstart", "--help")
    assert said.code == 0
    assert said.out.startswith("usage: feedtune quickstart")
    assert [word for word in ("minutes", "dir=", "seed=", "PPO") if word not in said.out] == []


@pytest.mark.parametrize("named", [True, False])
def test_a_stage_that_is_told_to_stop_says_how_all_go_on(
    named: bool, stages: list[str], monkeypatch: pytest.MonkeyPatch, feedtune: Any
) -> None:
    def stopped(arguments: list[str]) -> int:
        raise Interrupted(
            "stopped by SIGTERM after optimiser step 3; go on with: feedtune resume X", code=143
        )

    monkeypatch.setattr(train, "main", stopped)
    said = feedtune("pipeline", *stages[0 if named else 1 :])
    assert said.code == 143
    first, second = said.err.splitlines()[-2:]
    assert first.endswith(
        "feedtune: stopped by SIGTERM after optimiser step 3; go on with: feedtune resume X"
    )
    again = shlex.split(second.removeprefix("all stages go on with: feedtune pipeline "))
    if named:
        assert again == stages
    else:  # the folder was named by the time
        assert again[:-1] == stages[1:]
        assert again[-1].startswith("dir=")
