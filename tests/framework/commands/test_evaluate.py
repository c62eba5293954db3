"""`feedtune evaluate`: two tables, evaluation.json, and another reward if asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from feedtune.commands.evaluate import evaluate_run
from feedtune.config.compose import compose_config
from small_runs import overrides, run, write_rows


@pytest.fixture
def finished(lstm_run: Path, tmp_path: Path) -> Path:
    """A run folder that may be written into."""
    shutil.copytree(lstm_run, tmp_path / "run")
    return tmp_path / "run"


def test_tables_and_json_with_the_reference(finished: Path, feedtune: Any) -> None:
    said = feedtune("evaluate", str(finished))
    assert said.code == 0
    first, second = said.out.split("prompt", 1)
    assert all(word in first for word in ("metric", "before", "after", "eval/reward", "eval/kl"))
    assert all(word in second.splitlines()[0] for word in ("before", "after", "reward"))
    assert f"responses and numbers: {finished / 'evaluation.json'}" in said.out.replace("\n", "")
    found = json.loads((finished / "evaluation.json").read_text())
    assert set(found) == {"metrics", "records", "reference"}
    assert set(found["metrics"]) == set(found["reference"]["metrics"])
    assert {"eval/reward", "eval/kl", "eval/reference_perplexity", "eval/distinct"} <= set(found["metrics"])
    assert found["reference"]["metrics"]["eval/kl"] == 0.0
    assert found["metrics"]["eval/kl"] != 0.0  # it was trained
    prompts = [record["prompt"] for record in found["records"]]
    assert prompts == [record["prompt"] for record in found["reference"]["records"]]
    assert {"prompt", "response", "reward", "reference"} <= set(found["records"][0])


def test_an_untrained_run_equals_its_reference(tmp_path: Path, feedtune: Any) -> None:
    """The reference is rebuilt from the seed: the very weights that training began with."""
    chosen = overrides(write_rows(tmp_path), "transformer", "ppo", "optimizer.lr=0.0", "report=false")
    assert feedtune("train", *chosen, f"hydra.run.dir={tmp_path / 'run'}").code == 0
    found, before = evaluate_run(tmp_path / "run", ["evaluation.max_new_tokens=8"])
    assert before is not None
    assert found == before
    assert found.metrics["eval/kl"] == 0.0


def test_a_run_that_started_from_another_is_compared_with_that(tmp_path: Path, feedtune: Any) -> None:
    data = write_rows(tmp_path)
    first = overrides(data, "gru", "sft", "optimizer.lr=0.05", "report=false")
    assert feedtune("train", *first, f"hydra.run.dir={tmp_path / 'first'}").code == 0
    second = ["algorithm=sft", "task=jsonl", f"task.path={data}", "reward=length", "callbacks=quiet"]
    second += ["report=false", "collector.rows=8", "trainer.max_epochs=1", f"init_from={tmp_path / 'first'}"]
    assert feedtune("train", *second, f"hydra.run.dir={tmp_path / 'second'}").code == 0
    alone, none = evaluate_run(tmp_path / "first")
    _, before = evaluate_run(tmp_path / "second")
    assert none is None  # sft from scratch: random weights are worth no comparison
    assert before is not None
    assert before.records == alone.records


def test_another_reward_other_rows_another_decoding(finished: Path, feedtune: Any) -> None:
    chosen = ["reward=keyword", "reward.words=['1']", "evaluation.rows=1", "evaluation.decoding.greedy=true"]
    said = feedtune("evaluate", str(finished), "--out", str(finished / "other.json"), *chosen)
    assert said.code == 0, said.err
    found = json.loads((finished / "other.json").read_text())
    assert len(found["records"]) == 1
    assert found["records"][0]["reward"] in (0.0, 1.0)  # whether the word is there
    assert not (finished / "evaluation.json").exists()


def test_another_option_of_a_group_forgets_what_was_set_of_the_former(tmp_path: Path, feedtune: Any) -> None:
    chosen = overrides(write_rows(tmp_path), "ngram", "ppo", "reward.target=3", "report=false")
    assert feedtune("train", *chosen, f"hydra.run.dir={tmp_path / 'run'}").code == 0
    said = feedtune("evaluate", str(tmp_path / "run"), "reward=keyword")
    assert said.code == 0, said.err


def test_what_the_run_was_resumed_with_counts(finished: Path, feedtune: Any) -> None:
    """Also where the config is composed again, for an override of this command; the last word counts."""
    for most in (2, 1, 2, 1):
        typed = ["trainer.max_epochs=3", f"evaluation.max_new_tokens={most}"]
        assert feedtune("resume", str(finished), *typed).code == 0
    saved = yaml.safe_load((finished / ".hydra" / "overrides.yaml").read_text())
    assert saved[-3:] == [
        "evaluation.max_new_tokens=2",
        "trainer.max_epochs=3",
        "evaluation.max_new_tokens=1",
    ]
    for chosen, length in (
        ([], 1),
        (["evaluation.decoding.greedy=true"], 1),
        (["evaluation.max_new_tokens=2"], 2),
    ):
        found, _ = evaluate_run(finished, chosen)
        assert found.metrics["eval/length"] == length


def test_without_a_reward_everything_else_is_measured(finished: Path, feedtune: Any) -> None:
    assert feedtune("evaluate", str(finished), "~reward").code == 0
    found = json.loads((finished / "evaluation.json").read_text())
    assert "eval/reward" not in found["metrics"]
    assert "eval/kl" in found["metrics"]


def test_markup_in_what_was_said_is_text(finished: Path, feedtune: Any) -> None:
    """Rich would take `[/b]` for the end of bold, and fail."""
    data = finished.parent / "markup.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"[/b]{n}="}) + "\n" for n in range(9)))
    said = feedtune("evaluate", str(finished), f"task.path={data}")
    assert said.code == 0, said.err
    assert "[/b]" in said.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["nowhere: there is no such folder"]),
        (["."], [".: not a run folder of feedtune (it has no .hydra/config.yaml)"]),
        (
            ["RUN", "optimizer.lr=3"],
            ["optimizer.lr=3: evaluation uses evaluation, reward, task", "'optimizer'"],
        ),
        (["RUN", "evalution.rows=3"], ["not 'evalution'. Did you mean 'evaluation'?"]),
        (["RUN", "reward=lenght"], ["reward=lenght: there is no such option", "Did you mean 'length'?"]),
        (["RUN", "evaluation.rows=abc"], ["evaluation.rows: expected a whole number or null"]),
        (["RUN", "evaluation.decoding.top_p=2"], ["top_p: expected a number in (0, 1]"]),
        (["RUN", "How are you?"], ["'How are you?': expected key=value"]),
        (["RUN", "--out", "/nowhere/x.json"], ["/nowhere/x.json: cannot be written"]),
        (["RUN", "task.eval_fraction=0"], ["the task has no held-out rows"]),
    ],
)
def test_mistakes(arguments: list[str], words: list[str], finished: Path, rows: Path, feedtune: Any) -> None:
    said = feedtune("evaluate", *[a.replace("RUN", str(finished)) for a in arguments])
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert [word for word in words if word not in said.err] == [], said.err


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ([".hydra"], "the run ended before its first checkpoint, so there is no policy in it"),
        ([".hydra", "checkpoints"], "the run has not ended yet; go on with: feedtune resume"),
    ],
)
def test_a_run_without_a_policy(left: list[str], words: str, finished: Path, feedtune: Any) -> None:
    for path in finished.iterdir():
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = feedtune("evaluate", str(finished))
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert words in said.err


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("seed: [", "config.yaml: cannot be read"),
        ("[]", "config.yaml: expected the config of a run, got a list"),
        ("seed: 0", "the config lacks"),
        ("", "the config lacks"),
    ],
)
def test_a_damaged_config(config: str, words: str, finished: Path, feedtune: Any) -> None:
    (finished / ".hydra" / "config.yaml").write_text(config)
    for command in ("evaluate", "resume"):
        said = feedtune(command, str(finished))
        assert (said.code, said.err.count("\n")) == (2, 1)
        assert words in said.err


def test_a_config_of_a_run_is_no_way_around_trust(finished: Path, feedtune: Any) -> None:
    file = finished / ".hydra" / "config.yaml"
    evil = f"  mine:\n    _target_: os.system\n    command: touch {finished / 'pwned'}\n"
    file.write_text(file.read_text().replace("callbacks:\n", f"callbacks:\n{evil}"))
    for command in ("evaluate", "resume"):
        said = feedtune(command, str(finished))
        assert said.code == 2
        assert "callbacks.mine._target_: 'os.system' is not trusted" in said.err
    assert not (finished / "pwned").exists()


def test_a_run_made_in_python_can_be_evaluated_once_its_config_is_there(tmp_path: Path) -> None:
    """`train()` called by hand leaves no `.hydra`."""
    chosen = overrides(write_rows(tmp_path), "ngram", "sft")
    run(tmp_path / "run", chosen)
    (tmp_path / "run" / ".hydra").mkdir()
    from omegaconf import OmegaConf

    OmegaConf.save(compose_config(chosen), tmp_path / "run" / ".hydra" / "config.yaml")
    found, before = evaluate_run(tmp_path / "run")
    assert before is None
    assert "eval/perplexity" in found.metrics
