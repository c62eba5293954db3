"""`feedtune train --cfg job --resolve > my.yaml` prints what can be run: the same run comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from feedtune.contracts import Sample
from feedtune_plugins.rewards.length import Length
from small_runs import fingerprint, overrides

MINE = ["--config-dir", ".", "--config-name", "my"]


@pytest.fixture
def printed(rows: Path, feedtune: Any) -> list[str]:
    """Overrides whose config has interpolations, of the run folder too; it lies in my.yaml, resolved."""
    tiny = overrides(Path("rows.jsonl"), "lstm", "dapo", "report=false", "logger=tensorboard", "reward=sum")
    tiny = [one for one in tiny if one != "reward=length"]
    tiny += ["reward@reward.sources.sentiment=keyword", "reward.sources.sentiment.words=['1','3']"]
    said = feedtune("train", *tiny, "--cfg", "job", "--resolve")
    assert said.code == 0, said.err
    (rows.parent / "my.yaml").write_text(said.out)
    return tiny


def test_the_same_run_comes_of_it(printed: list[str], rows: Path, feedtune: Any) -> None:
    assert feedtune("train", *printed, "hydra.run.dir=typed").code == 0
    said = feedtune("train", *MINE, "hydra.run.dir=printed")
    assert said.code == 0, said.err
    typed, again = rows.parent / "typed", rows.parent / "printed"
    assert fingerprint(again) == fingerprint(typed)
    both = ({path.name for path in folder.iterdir()} for folder in (typed, again))
    assert next(both) == next(both)  # the loggers' folders, and no log of Hydra's
    refused = feedtune("train", *MINE, "hydra.run.dir=printed")
    assert "hydra.run.dir: printed already holds a run" in refused.err
    assert feedtune("resume", "printed").code == 0
    assert fingerprint(again) == fingerprint(typed)


def test_only_the_run_folder_is_left_open(printed: list[str], rows: Path) -> None:
    text = (rows.parent / "my.yaml").read_text()
    config = yaml.safe_load(text)
    assert text.count("${") == 1
    assert config["logger"]["folder"] == "${run_dir}"
    assert config["run_dir"] is None
    assert config["algorithm"]["overlong"]["limit"] == 4  # collector.max_new_tokens


def test_values_can_be_overridden_and_options_not(printed: list[str], rows: Path, feedtune: Any) -> None:
    said = feedtune("train", *MINE, "trainer.max_epochs=1", "hydra.run.dir=short")
    assert said.code == 0, said.err
    assert len(fingerprint(rows.parent / "short")["metrics"]) == 1
    said = feedtune("train", *MINE, "backbone=gru", "hydra.run.dir=other")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert said.err.startswith("feedtune: backbone=gru: the file of --config-name writes its options out")
    assert "(backbone.KEY=VALUE)" in said.err
    assert "Did you mean" not in said.err


def test_evaluation_with_another_reward_knows_the_rest_from_the_run(
    printed: list[str], rows: Path, feedtune: Any
) -> None:
    """The overrides of such a run are not all: composing them anew would evaluate another config."""
    assert feedtune("train", *MINE, "trainer.max_epochs=1", "hydra.run.dir=run").code == 0
    said = feedtune("evaluate", "run", "reward=length", "reward.target=3", "evaluation.rows=4")
    assert said.code == 0, said.err
    found = json.loads((rows.parent / "run" / "evaluation.json").read_text())
    records = found["records"]
    assert records
    scores = Length(target=3)([Sample(record["prompt"], record["response"]) for record in records])
    assert [record["reward"] for record in records] == pytest.approx(scores.tolist())


def test_a_part_of_it_is_printed_as_hydra_does(feedtune: Any) -> None:
    said = feedtune("train", "--cfg", "job", "--package", "optimizer")
    assert said.out.startswith("# @package optimizer\n_target_: torch.optim.AdamW\n")
