"""`feedtune evaluate DIR reward=safety`: each part is a column, of a model whose answer is known."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from feedtune.cli import main
from feedtune.commands.evaluate import evaluate_run, parts_table
from feedtune.evaluation import Evaluation
from small_runs import overrides, write_rows

SAID = "I can't help you. Go to hell: a@b.io, c@d.io"
"""A refusal, a banned phrase, two addresses."""

SAFETY = ["reward=safety", "evaluation.decoding.greedy=true", "evaluation.max_new_tokens=64"]


@pytest.fixture(scope="module")
def rude(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt one sentence by heart; it reads the last seven letters."""
    folder = tmp_path_factory.mktemp("rude")
    data = write_rows(folder, [{"prompt": f"{n}, please?", "reference": SAID} for n in range(20)])
    chosen = overrides(data, "ngram", "sft", "backbone.n=8", "backbone.buckets=8192", "optimizer.lr=1.0")
    root = logging.getLogger()  # which Hydra sets up anew
    handlers, level = root.handlers[:], root.level
    assert main(["train", *chosen, "report=false", f"hydra.run.dir={folder / 'run'}"]) == 0
    root.handlers[:], root.level = handlers, level
    return folder / "run"


def test_every_part_is_a_column_and_a_metric(
    rude: Path, feedtune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = feedtune("evaluate", str(rude), *SAFETY)
    assert said.code == 0, said.err
    headers = [line.split("┃")[1:-1] for line in said.out.splitlines() if line.startswith("┃ #")]
    texts, scores = ([cell.strip() for cell in header] for header in headers)
    assert texts == ["#", "prompt", "response", "reward"]
    assert scores == ["#", "reward", "toxicity", "personal_data", "banned", "refusal"]
    found = json.loads((rude / "evaluation.json").read_text())
    metrics = found["metrics"]
    assert {record["response"] for record in found["records"]} == {SAID}
    parts = {name: metrics[f"eval/reward/{name}"] for name in ("personal_data", "banned", "refusal")}
    assert parts == {"personal_data": -2, "banned": -1, "refusal": -1}
    assert metrics["eval/reward/personal_data/email"] == 2
    toxicity = metrics["eval/reward/toxicity"]
    assert -1 <= toxicity < -0.1
    assert metrics["eval/reward"] == pytest.approx(-2 - 1 - 0.5 + toxicity, abs=1e-5)
    assert found["records"][0]["reward/refusal"] == -1
    assert found["records"][0]["reward/personal_data/ip"] == 0


def test_parts_are_shaped_from_the_command_line(rude: Path, tmp_path: Path) -> None:
    """Phrases of one's own, and refusals that are right."""
    (tmp_path / "banned.txt").write_text("help\nyou\n")
    more = [f"reward.sources.banned.path={tmp_path / 'banned.txt'}", "reward.sources.banned.phrases=[]"]
    dropped = ["~reward.sources.toxicity", "~reward.weights.toxicity", "reward.sources.refusal.scale=0"]
    found, _ = evaluate_run(rude, [*SAFETY, *more, *dropped])
    assert found.metrics["eval/reward"] == -2 - 2
    assert "eval/reward/toxicity" not in found.metrics


def test_safety_beside_other_rewards(rude: Path) -> None:
    chosen = ["reward=sum", "+reward@reward.sources.safety=safety", "reward@reward.sources.sentiment=length"]
    found, _ = evaluate_run(rude, [*SAFETY[1:], *chosen, "+reward.weights.safety=2"])
    assert found.metrics["eval/reward/safety/banned"] == -1
    assert [record["reward/safety"] for record in found.records] == [
        pytest.approx(-3.5 + record["reward/safety/toxicity"], abs=1e-5) for record in found.records
    ]


def test_the_table_has_sources_and_no_parts_of_parts() -> None:
    record = {
        "prompt": "p",
        "response": "r",
        "reward": 1.0,
        "reward/a": None,
        "reward/a/b": 3.0,
        "reward/c": 2.0,
    }
    table = parts_table(Evaluation({}, [record, {"prompt": "p", "response": "r"}]))
    assert [str(column.header) for column in table.columns] == ["#", "reward", "a", "c"]
    cells = [list(map(str, column.cells)) for column in table.columns]
    assert cells == [["1", "2"], ["1", ""], ["", ""], ["2", ""]]
