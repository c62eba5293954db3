"""From service to learning from clicks, and a run's value before it serves: the commands in a row."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from feedtune.cli import main
from feedtune.feedback.storage.store import FeedbackStore
from feedtune_plugins.tasks import ranking
from small_runs import SMALL

TASK = ["task=ranking", "task.rows=40", "task.eval_rows=20"]
QUIET = ["callbacks=quiet", "selfcheck=false", "report=false", "evaluation.max_new_tokens=12"]


@pytest.fixture(scope="module")
def logging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A table over pairs of words that has learnt to say rankings, more or less."""
    conversations = ranking.conversations
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "conversations", cache(lambda needed_by: conversations()[:150]))
        folder = tmp_path_factory.mktemp("run") / "logging"
        table = [*SMALL["ngram"], "backbone.buckets=4096", "tokenizer=word", "tokenizer.vocab_size=300"]
        trained(folder, "algorithm=sft", *table, "trainer.max_epochs=15", "optimizer.lr=0.3")
        yield folder


def trained(folder: Path, *chosen: str) -> list[dict[str, str]]:
    """A run; its rows of metrics."""
    assert main(["train", *chosen, *TASK, *QUIET, f"hydra.run.dir={folder}"]) == 0
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_serves_is_logged_and_learns(logging: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = logging / "feedback.sqlite"
    assert main(["feedback", "clicks", str(logging), "clicks.showings=80", "clicks.noise=0.4"]) == 0
    assert main(["feedback", "clicks", str(logging), "clicks.split=eval"]) == 0
    said = capsys.readouterr().out
    assert "a showing)" in said
    events = FeedbackStore(path).events()
    assert sum(one.kind == "shown" for one in events) > 30
    assert sum(one.kind == "click" for one in events) > 10
    again = ["feedback", "clicks", str(logging), "clicks.showings=80", "clicks.noise=0.4"]
    assert main(again) == 0
    assert "\n0 new events" in capsys.readouterr().out
    assert FeedbackStore(path).events() == events

    tuned = logging.parent / "tuned"
    learning = ["algorithm=reinforce", f"init_from={logging}", "reward=clicks", f"reward.path={path}"]
    rollout = ["collector.responses=16", "collector.max_new_tokens=12", "trainer.max_epochs=2"]
    rows = trained(tuned, *learning, "reward@monitor.reward=ndcg", "evaluation.every=1", *rollout)
    assert all(float(row["rollout/reward"]) > 0 for row in rows)
    assert all(0 < float(row["eval/monitor"]) <= 1 for row in rows)

    capsys.readouterr()
    assert main(["feedback", "estimate", str(tuned), f"feedback.path={path}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    shown = sum(one.kind == "shown" for one in events)
    assert found["ips"]["rows"] == shown
    assert found["logged"]["value"] == pytest.approx((len(events) - shown) / shown)
    assert all(math.isfinite(one["value"]) and one["error"] > 0 for one in found.values())
    held_out = ["feedback", "estimate", str(logging), "estimate.split=eval"]
    assert main(held_out) == 0
    table = capsys.readouterr().out
    assert "self-normalized" in table
    assert f"{shown} showings" not in table  # only those of held-out queries
    assert main([*held_out, "--json"]) == 0
    own = json.loads(capsys.readouterr().out)  # of the policy that was logged: nothing to correct
    assert own["ips"]["value"] == pytest.approx(own["logged"]["value"], rel=1e-3)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["clicks", "feedback.path=none.sqlite"],
            "DIR: not given; name the run folder whose policy",
        ),
        (["clicks", "RUN", "clicks.nois=0.1"], "clicks.nois: there is no such key"),
        (["clicks", "RUN", "clicks.noise=2"], "clicks.noise: expected a number in [0, 1], got 2"),
        (["clicks", "RUN", "clicks.split=test"], "clicks.split: expected"),
        (["clicks", "RUN", "clicks.column=grades"], "clicks.column: rows need the grade of each document"),
        (["estimate", "feedback.path=none.sqlite"], "there is no feedback store none.sqlite"),
        (["estimate", "RUN", "estimate.clip=0"], "estimate.clip: expected a number above 0"),
    ],
)
def test_mistakes_are_named(
    words: list[str], problem: str, logging: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FeedbackStore(logging / "feedback.sqlite").add([])
    assert main(["feedback", *(str(logging) if word == "RUN" else word for word in words)]) == 2
    said = capsys.readouterr()
    assert problem in said.err
    assert "Traceback" not in said.err
