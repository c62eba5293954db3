"""Stages of a pipeline that gather feedback: run in turn, gone on with, and looked through beforehand."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from feedtune.config.compose import compose_config, to_plain
from feedtune.feedback import FeedbackStore
from small_runs import SMALL

PIPELINES = sorted(file.stem for file in (Path(__file__).parents[3] / "conf" / "pipeline").glob("*.yaml"))

JUDGE = ["algorithm=reward_model", *SMALL["gru"], "tokenizer=char", "task=feedback", "trainer.max_epochs=1"]
JUDGE += ["task.path=${dir}/ask/feedback.sqlite", "callbacks=quiet", "selfcheck=false"]
ASK = ["simulate", "items.jsonl", "feedback.path=${dir}/ask/feedback.sqlite", "simulate.temperature=0"]
ASK += ["simulate.answers=12", "reward=length"]


def stages(ask: list[str], judge: list[str]) -> list[str]:
    """Overrides of two stages, in place of those of the quickstart."""
    asking = f"ask: {{command: feedback, arguments: {listed(ask)}}}"
    judging = f"judge: {{command: train, arguments: {listed(judge)}}}"
    return ["~stages", f"+stages={{{asking}, {judging}}}", "dir=all"]


def listed(arguments: list[str]) -> str:
    """A list as Hydra reads it."""
    return "[" + ",".join(f'"{argument}"' for argument in arguments) + "]"


@pytest.fixture
def items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """items.jsonl in the working directory."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{n}?", "responses": ["Yes, why not", "No"]} for n in range(20)]
    Path("items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_reward_model_learns_from_the_stage_before_which_asks_nothing_twice(
    items: None, feedtune: Any
) -> None:
    said = feedtune("pipeline", *stages(ASK, JUDGE))
    assert said.code == 0, said.err
    assert "12 comparisons by simulated raters, of 20 items" in said.out
    answers = FeedbackStore("all/ask/feedback.sqlite").answers()
    assert len(answers) == 12
    assert Path("all/judge/export/feedtune.json").is_file()

    again = feedtune("pipeline", *stages(ASK, JUDGE))
    assert again.code == 0, again.err
    assert "all/judge: complete already" in again.out
    assert FeedbackStore("all/ask/feedback.sqlite").answers() == answers


def test_its_mistakes_show_before_the_first_stage_has_run(items: None, feedtune: Any) -> None:
    for ask, words in {
        "simulat": "stages.ask: feedback: no subcommand 'simulat'. Did you mean 'simulate'?",
        "simulate all/asc": "stages.ask: DIR: all/asc: there is no such folder, and no stage",
        "simulate items.jsonl simulate.answer=3": "stages.ask: simulate.answer: there is no such key in "
        "'simulate'. Did you mean 'answers'?",
        "simulate items.jsonl reward=lenght": "stages.ask: reward=lenght: there is no such option",
        "simulate items.jsonl simulate.raters=x": "stages.ask: simulate.raters: expected a whole number",
        "simulate reward=length": "stages.ask: feedback.path: not given; name the store",
        "export all/ask out feedback.key=UNSET_KEY": "stages.ask: feedback.key: the environment variable",
    }.items():
        said = feedtune("pipeline", *stages(shlex.split(ask), JUDGE), "--dry-run")
        assert (said.code, said.out) == (2, ""), said.out
        assert words in said.err
    assert not Path("all").exists()


def test_a_missing_extra_shows_before_the_first_stage_has_run(
    items: None, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    said = feedtune("pipeline", *stages(ASK, JUDGE), "--dry-run")
    assert (said.code, said.out) == (2, "")
    assert "stages.ask: feedtune feedback simulate needs the package 'uvicorn'. Install it with" in said.err


def test_it_gets_the_folder_of_plugins(items: None, feedtune: Any) -> None:
    Path("mine/conf").mkdir(parents=True)
    said = feedtune("pipeline", *stages(ASK, JUDGE), "plugins_path=mine", "--dry-run")
    assert said.code == 0, said.err
    first = shlex.split(said.out.splitlines()[0].partition(": ")[2])
    assert first[:4] == ["feedtune", "feedback", "simulate", f"plugins_path='{Path('mine').resolve()}'"]


@pytest.mark.parametrize("name", PIPELINES)
def test_what_ships_has_no_mistake_and_says_what_to_expect(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feedtune: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    said = feedtune("pipeline", f"pipeline={name}", "--dry-run")
    assert said.code == 0, said.err
    assert {line.partition("(")[2].partition(")")[0] for line in said.out.splitlines()} == {"to do"}
    file = Path(__file__).parents[3] / "conf" / "pipeline" / f"{name}.yaml"
    head = " ".join(line for line in file.read_text().partition("\nname:")[0].splitlines())
    assert f"pipeline={name}" in head
    assert "minutes" in head


SMALLER = {
    "pretrain": ["task.limit=200", "trainer.max_steps=4"],
    "imitate": ["task.limit=200", "trainer.max_steps=2"],
    "compare": ["feedback.prompts=40", "simulate.answers=40"],
    "judge": ["evaluation.rows=4"],
    "tune": ["task.limit=200", "trainer.max_epochs=1", "collector.responses=8", "evaluation.rows=8"],
    "evaluate": ["evaluation.rows=8"],
}
"""What is added to the arguments of each stage of pipeline=rlhf."""


@pytest.mark.slow
def test_rlhf_runs_from_its_first_stage_to_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feedtune: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = to_plain(compose_config(["pipeline=rlhf", "dir=all"], "pipeline"))["stages"]
    assert shipped.keys() == SMALLER.keys()
    typed = [
        f"stages.{name}.arguments={listed([*stage['arguments'], *SMALLER[name]])}"
        for name, stage in shipped.items()
    ]
    said = feedtune("pipeline", "pipeline=rlhf", "dir=all", *typed)
    assert said.code == 0, said.err
    assert "40 comparisons by simulated raters, of 40 items" in said.out
    found = json.loads(Path("all/tune/evaluation.json").read_text())
    assert found["metrics"]["eval/reward"] == found["metrics"]["eval/monitor"]  # the hidden one, twice
    assert found["reference"]["metrics"]["eval/kl"] == 0.0
    assert Path("all/report.html").is_file()
