"""Every experiment that ships runs, one minibatch deep."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from click_logs import Shown, clicks, store
from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.feedback import Answer, FeedbackStore, item_of, now, response_of
from feedtune_plugins.tasks import ranking
from feedtune_plugins.tasks.chitchat import conversations
from small_runs import SMALL, overrides, run, write_rows

EXPERIMENTS = sorted(path.stem for path in (Path(__file__).parents[1] / "conf" / "experiment").glob("*.yaml"))

SMALLER = {
    "quickstart_pretrain": ["task.limit=300"],
    "quickstart_ppo": ["task.limit=300", "collector.responses=8"],
    "ranking_clicks": [*SMALL["ngram"], "task.rows=60", "task.eval_rows=20", "collector.responses=8"],
    "ranking_logging": ["task.rows=60", "task.eval_rows=20"],
    "rlhf_ppo": ["task.limit=300", "collector.responses=8"],
    "rlhf_sft": ["task.limit=300"],
}
"""Less data and fewer responses; everything else as it ships."""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder in place of a model from the hub."""
    folder = tmp_path_factory.mktemp("tiny")
    run(folder / "run", overrides(write_rows(folder), "transformer", "sft", "backbone.context_length=256"))
    return folder / "run" / "export"


@cache
def few_conversations(needed_by: str) -> list[list[str]]:
    """Of 4,017, the first ones, read once."""
    return conversations()[:200]


def clicks_on_rankings(folder: Path, chosen: list[str]) -> str:
    """A log in which the old ranker's order was shown to each query, and its first entry clicked."""
    rows = build(compose_config([*chosen, "reward.path=none"]).task, "task").load("train")
    shown = [Shown(row["messages"][0]["content"], row["reference"], 0.5, clicks(1)) for row in rows]
    return store(folder / "clicks.sqlite", shown)


@pytest.fixture(scope="session")
def comparisons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which a rater has preferred the longer of two answers, 20 times."""
    store = FeedbackStore(tmp_path_factory.mktemp("compared") / "feedback.sqlite")
    for n in range(20):
        item = item_of(f"{n}?", [response_of(f"{n}?", text) for text in ("Yes, why not", "No")])
        shown = tuple(one.id for one in item.responses)
        store.add([item])
        store.answer(
            Answer(
                id=str(n),
                item=item.id,
                kind="comparison",
                responses=shown,
                value="a",
                rater="ann",
                time=now(),
            )
        )
    return store.path


@pytest.fixture(scope="session")
def reward_model(comparisons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learnt from them."""
    folder = tmp_path_factory.mktemp("reward_model")
    typed = [
        "algorithm=reward_model",
        *SMALL["gru"],
        "tokenizer=char",
        "task=feedback",
        "trainer.max_epochs=1",
    ]
    run(folder, [*typed, f"task.path={comparisons}", "callbacks=quiet", "selfcheck=false"])
    return folder


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs(
    experiment: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [f"experiment={experiment}", "trainer.fast_dev_run=true", *SMALLER.get(experiment, [])]
    monkeypatch.setattr(ranking, "conversations", few_conversations)
    if experiment == "smollm2":
        chosen += [
            f"backbone.name={request.getfixturevalue('tiny_model')}",
            "collector.responses=16",
            "collector.max_new_tokens=4",
        ]
    if experiment == "rlhf_ppo":
        chosen += [f"reward.run={request.getfixturevalue('reward_model')}"]
    if experiment == "rlhf_reward_model":
        chosen += [f"task.path={request.getfixturevalue('comparisons')}"]
    if experiment == "ranking_clicks":
        chosen += [f"reward.path={clicks_on_rankings(tmp_path, chosen)}"]
    run(tmp_path, chosen)
    assert not (tmp_path / "metrics.csv").exists()  # a rehearsal leaves no files


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_opens_with_command_expectation_and_minutes(experiment: str) -> None:
    file = Path(__file__).parents[1] / "conf" / "experiment" / f"{experiment}.yaml"
    head = [
        line for line in file.read_text().partition("\ndefaults:")[0].splitlines() if line.startswith("# ")
    ]
    assert head[0] == "# @package _global_"
    assert head[1].startswith(f"# feedtune train experiment={experiment}")
    assert "Expect " in " ".join(head)
    assert " minutes on " in " ".join(head)
