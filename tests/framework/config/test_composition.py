"""Every option of every group in conf/ composes, says what it is, names its arguments, and can be built."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from feedback_stores import every_kind
from feedtune.commands.feedback.settings import GROUPS as ASKING
from feedtune.commands.feedback.settings import TOP_LEVEL as ASKING_TOP_LEVEL
from feedtune.commands.stages import STAGES
from feedtune.config.build import build
from feedtune.config.check import check
from feedtune.config.compose import FLAGS, compose_config, to_plain
from feedtune.config.discovery import OPTIONAL, own_conf
from feedtune.config.trust import resolve
from feedtune.contracts import Algorithm, Backbone, Buffer, Collector, RewardSource
from feedtune.errors import UserError
from feedtune.judging import Constitution, Rubric
from feedtune.policy import Policy
from feedtune.runs.assembly import GROUPS, TOP_LEVEL
from feedtune.runs.export import save
from feedtune.text.codec import Codec
from feedtune.text.tokenizers import TrainedTokenizer, texts_of
from feedtune_plugins.backbones.ngram import NGram
from small_runs import ROWS, SMALL

FILES = sorted(own_conf().rglob("*.yaml"))
OPTIONS = [(file.parent.name, file.stem) for file in FILES if file.parent != own_conf()]
NAMES = [f"{group}={option}" for group, option in OPTIONS if group in GROUPS]
FEEDBACK = [f"{g}={o}" for g, o in OPTIONS if g in ASKING and g not in GROUPS]
OTHERS = [f"{g}={o}" for g, o in OPTIONS if g not in (*GROUPS, *ASKING, "pipeline")]

RUN_TIME = {"codec", "vocab_size", "optimizer", "total_steps"}
"""Parameters of our constructors that no YAML can give."""


def a_weight() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.zeros(1))]


def is_task(built: Any) -> bool:
    """Its two splits have rows, and share none."""
    train, held_out = built.load("train"), built.load("eval")
    seen = {json.dumps(row) for row in train}
    return bool(train and held_out) and not any(json.dumps(row) in seen for row in held_out)


IS_RIGHT: dict[str, Callable[[Any], bool]] = {
    "algorithm": lambda built: isinstance(built, Algorithm),
    "backbone": lambda built: isinstance(built, Backbone),
    "tokenizer": lambda built: built.build(lambda: texts_of(ROWS)).vocab_size > 10,
    "buffer": lambda built: isinstance(built, Buffer),
    "collector": lambda built: isinstance(built, Collector),
    "reward": lambda built: isinstance(built, RewardSource),
    "task": is_task,
    "optimizer": lambda built: isinstance(built(a_weight()), Optimizer),
    "scheduler": lambda built: isinstance(built(torch.optim.SGD(a_weight()), 10), LRScheduler),
    "trainer": lambda built: isinstance(built, Trainer),
    "logger": lambda built: built is None or isinstance(built, Logger),  # csv: a callback writes metrics.csv
    "callbacks": lambda built: isinstance(built, Callback),
    "checkpoint": lambda built: isinstance(built, Callback),
    "judge": lambda built: callable(built) and isinstance(built.label, str),
    "rubric": lambda built: isinstance(built, Rubric),
    "constitution": lambda built: isinstance(built, Constitution),
}
"""What each part has to be, once built."""


def judge(folder: Path) -> Path:
    """A reward model."""
    policy = Policy(NGram(vocab_size=20, n=2), heads={"reward": 1})
    return save(policy, TrainedTokenizer(kind="char").build(lambda: texts_of(ROWS)), folder)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> dict[str, list[str]]:
    """What an option needs of the user, by `group=option`; sizes, where the shipped ones are large."""
    folder = tmp_path_factory.mktemp("composition")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    lines = [f"{row['prompt']},{row['reference']}" for row in ROWS]
    (folder / "rows.csv").write_text("\n".join(["prompt,reference", *lines]))
    (folder / "rows.txt").write_text("\n\n".join(row["prompt"] + row["reference"] for row in ROWS))
    (folder / "rewards.py").write_text("def score(responses):\n    return [1.0 for _ in responses]\n")
    import datasets

    table = datasets.Dataset.from_list(ROWS)
    table.to_parquet(folder / "rows.parquet")
    datasets.DatasetDict(train=table).save_to_disk(folder / "on_disk")
    return {
        "task=jsonl": [f"task.path={folder / 'rows.jsonl'}"],
        "task=csv": [f"task.path={folder / 'rows.csv'}"],
        "task=text": [f"task.path={folder / 'rows.txt'}"],
        "task=parquet": [f"task.path={folder / 'rows.parquet'}"],
        "task=datasets": [f"task.path={folder / 'on_disk'}"],
        "task=feedback": [f"task.path={every_kind(folder / 'feedback.sqlite').path}"],
        "task=chitchat": ["task.limit=500"],
        "reward=function": [f"reward.path={folder / 'rewards.py'}:score"],
        "reward=reward_model": [f"reward.run={judge(folder / 'judge')}"],
        "reward=http": ["reward.url=http://127.0.0.1:9/score"],
        "reward=clicks": [f"reward.path={every_kind(folder / 'clicks.sqlite').path}"],
        "reward=logged": [f"reward.path={every_kind(folder / 'events.sqlite').path}"],
        "reward=judge": ["reward.judge.url=http://127.0.0.1:9/v1", "reward.judge.model=tiny"],
        "judge=openai": ["judge.url=http://127.0.0.1:9/v1", "judge.model=tiny"],
        "judge=local": [f"judge.path={model_folder}"],
        "backbone=hf": [f"backbone.name={model_folder}"],
        "tokenizer=pretrained": [f"tokenizer.name={model_folder}"],
        "logger=wandb": ["logger.mode=offline"],
        "trainer=ddp": ["trainer.accelerator=cpu"],
        **{f"backbone={name}": values[1:] for name, values in SMALL.items()},
    }


@pytest.fixture(scope="module")
def codec() -> Codec:
    return TrainedTokenizer(kind="char").build(lambda: texts_of(ROWS))


def test_all_of_conf_is_found() -> None:
    assert {"ppo", "reinforce", "sft", "q_learning"} <= {o for g, o in OPTIONS if g == "algorithm"}
    assert {group for group, _ in OPTIONS} >= {*GROUPS, "experiment", "debug", "pipeline"}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(own_conf())))
def test_every_yaml_begins_with_a_comment(file: Path) -> None:
    lines = file.read_text().splitlines()
    comments = [line for line in lines[:3] if line.startswith("# ") and not line.startswith("# @package")]
    assert lines[0].startswith("# ")
    assert comments, "a line that says what uses it and what to expect"
    assert all(len(line) <= 160 for line in lines)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(own_conf())))
def test_every_value_of_a_part_is_explained(file: Path) -> None:
    """Each argument has a comment beside it. Experiments only choose; train.yaml ends in Hydra's own keys."""
    if file.parent.name in ("experiment", "pipeline", "debug") or file.name == "pipeline.yaml":
        return
    lines = file.read_text().partition("\nhydra:")[0].splitlines()
    values = [line for line in lines if re.match(r" *[a-z]\w*: *[^\s#]", line)]
    assert [line for line in values if " #" not in line] == []


ASKED = {
    "experiment=ranking_clicks": ["reward.path=here"],
    "experiment=rlhf_ppo": ["reward.run=here"],
    "experiment=rlhf_reward_model": ["task.path=here"],
}
"""What experiments leave to the user: the results of earlier ones."""


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_option_composes_and_its_values_have_the_right_types(name: str) -> None:
    check(compose_config([name, *ASKED.get(name, []), "run_dir=here"]), TOP_LEVEL, GROUPS)


@pytest.mark.parametrize("name", FEEDBACK)
def test_every_option_for_feedback_composes_and_can_be_built(name: str, given: dict[str, list[str]]) -> None:
    group = name.partition("=")[0]
    config = compose_config([name, *given.get(name, [])], "feedback")
    check(config, ASKING_TOP_LEVEL, ASKING)
    assert IS_RIGHT[group](build(config[group], group))


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "pipeline"])
def test_every_pipeline_is_made_of_commands_that_compose(option: str, tmp_path: Path) -> None:
    config = to_plain(compose_config([f"pipeline={option}", f"dir={tmp_path}"], "pipeline"))
    assert config["stages"]
    for stage in config["stages"].values():
        assert stage["command"] in STAGES
        if stage["command"] == "train":
            check(compose_config([*stage["arguments"], "run_dir=here"]), TOP_LEVEL, GROUPS)


def nodes_of(value: Any) -> list[dict[str, Any]]:
    """Every mapping with a `_target_`, the innermost too."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [node for one in inner for node in nodes_of(one)]
    return [value, *found] if isinstance(value, dict) and "_target_" in value else found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(own_conf())))
def test_a_yaml_gives_exactly_its_constructors_arguments(file: Path) -> None:
    for node in nodes_of(yaml.safe_load(file.read_text())):
        target = resolve(node["_target_"], file.name)
        signature = inspect.signature(target).parameters.values()
        parameters = {p.name for p in signature if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        keys = set(node) - {*FLAGS, "defaults"}
        assert keys <= parameters, file.name
        if target.__module__.startswith("feedtune"):
            # A collector is given the run's reward; what a reward is made of comes from a defaults list.
            elsewhere = {
                "collector": {"reward"},
                "reward": {"sources", "judge", "rubric"},
                "judge": {"hidden"},
            }.get(file.parent.name, set())
            assert parameters - keys <= RUN_TIME | elsewhere, file.name


@pytest.mark.parametrize("name", NAMES)
def test_every_part_has_the_right_types_and_can_be_built(
    name: str, given: dict[str, list[str]], codec: Codec, tmp_path: Path
) -> None:
    group = name.partition("=")[0]
    config = compose_config([name, *given.get(name, []), f"run_dir={tmp_path}"])
    check(config, TOP_LEVEL, GROUPS)
    node = config[group]
    if name == "trainer=gpu" and not torch.cuda.is_available():
        with pytest.raises(UserError, match="trainer: No supported gpu backend found"):
            build(node, group)
        return
    run_time: dict[str, dict[str, Any]] = {
        "backbone": {"vocab_size": codec.vocab_size},
        "collector": {"codec": codec, "reward": lambda samples: [0.0] * len(samples)},
    }
    nodes = node.values() if group == "callbacks" else [node]
    for one in nodes:
        assert IS_RIGHT[group](build(one, group, **run_time.get(group, {})))


def test_the_optional_groups_are_groups() -> None:
    assert set(OPTIONAL) < set(GROUPS)
    assert {*TOP_LEVEL, *GROUPS} == set(compose_config())
