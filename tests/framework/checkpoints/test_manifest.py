"""Which run a checkpoint is of, and in what two runs differ. Nothing here trains."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from feedtune.checkpoints import manifest
from feedtune.checkpoints.manifest import MAY_DIFFER, describe, differences, rows_digest
from feedtune.config.compose import compose_config, to_plain
from feedtune.config.discovery import Provider
from feedtune.runs.assembly import GROUPS, TOP_LEVEL, checked
from small_runs import ROWS, overrides


@cache
def config(*more: str) -> DictConfig:
    return checked(compose_config(overrides(Path("rows.jsonl"), "lstm", "ppo", *more)), Path("run"))


def described(*more: str, rows: list[dict[str, Any]] = ROWS) -> dict[str, Any]:
    return describe(config(*more), rows, 1)


def differ(*more: str) -> list[str]:
    """What is said where a run that began plainly goes on with these overrides."""
    return differences(described(), described(*more), config(*more))


def test_a_description_survives_json() -> None:
    found = described()
    assert json.loads(json.dumps(found)) == found
    assert differences(json.loads(json.dumps(found)), described(), config()) == []


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer.lr=0.5", "optimizer.lr: 0.001 when the checkpoint was written, 0.5 now"),
        ("seed=1", "seed: 0 when the checkpoint was written, 1 now"),
        ("trainer.precision=bf16-mixed", 'trainer.precision: "32-true" when the checkpoint was written'),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches: 1 when"),
        (
            "algorithm.surrogate.low=0.1",
            "algorithm.surrogate.low: 0.2 when the checkpoint was written, 0.1 now",
        ),
        ("collector.max_new_tokens=5", "collector.max_new_tokens: 4 when the checkpoint was written, 5 now"),
        ("parameter_groups={value: {lr: 0.1}}", "parameter_groups.value.lr: nothing when"),
        (
            "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: a}",
            'callbacks.stop._target_: nothing when the checkpoint was written, "lightning.pytorch.callb',
        ),
    ],
)
def test_what_changes_a_run_is_named(override: str, line: str) -> None:
    found = differ(override)
    assert [one for one in found if one.startswith(line)] != [], found


@pytest.mark.parametrize(
    "override",
    [
        "trainer.max_epochs=40",
        "trainer.max_steps=7",
        "trainer.max_time=00:01:00:00",
        "trainer.log_every_n_steps=5",
        "report=false",
        "profile=true",
        "trust=[mine]",
        "logger=tensorboard",
        "checkpoint.every_steps=5",
        "~checkpoint",
        "evaluation.every=1",
        "callbacks=default",
    ],
)
def test_what_changes_nothing_of_it_is_not(override: str) -> None:
    assert differ(override) == []


def test_where_a_run_lies_is_no_part_of_it() -> None:
    """Nor is what is taken from that, such as the folder of a cache."""
    plain = compose_config(overrides(Path("rows.jsonl"), "lstm", "ppo", "reward.unit='${run_dir}'"))
    here, there = (OmegaConf.merge(plain, {"run_dir": folder}) for folder in ("here", "there"))
    assert isinstance(here, DictConfig)
    assert isinstance(there, DictConfig)
    assert describe(here, ROWS, 1) == describe(there, ROWS, 1)


def test_every_exception_is_a_key_of_the_config() -> None:
    plain = to_plain(config())
    for key in MAY_DIFFER:
        node: Any = plain
        for name in key.split("."):
            assert name in node, key
            node = node[name]
        assert key.split(".")[0] in {*TOP_LEVEL, *GROUPS}, key


def test_a_value_that_is_taken_from_another_is_not_named_twice() -> None:
    now = OmegaConf.create({"a": {"n": 2}, "b": {"n": "${a.n}", "m": "${oc.select:a.n,7}"}, "c": "${a}"})
    then = {"config": {"a.n": "1", "b.n": "1", "b.m": "1", "c.n": "1"}}
    found = differences(then, {"config": {"a.n": "2", "b.n": "2", "b.m": "2", "c.n": "2"}}, now)
    assert found == ["a.n: 1 when the checkpoint was written, 2 now"]


def test_rows_that_changed_are_counted() -> None:
    other = [*ROWS[:-1], {**ROWS[-1], "reference": "9"}]
    fewer = ROWS[:-1]
    [changed] = differences(described(), described(rows=other), config())
    [cut] = differences(described(), described(rows=fewer), config())
    assert changed == "task: its 25 training rows are not the 25 with which the checkpoint was written"
    assert cut == "task: its 24 training rows are not the 25 with which the checkpoint was written"


@pytest.mark.parametrize(
    "other",
    [
        [{"a": "x"}, {"a": "y"}],
        [{"a": "y"}, {"a": "x", "b": None}],
        [{"a": "y"}],
        [{"a": "y"}, {"b": "x"}],
        [{"a": "y"}, {"a": ["x"]}],
        [{"a": "y"}, {"a": "x\ud800"}],
    ],
)
def test_rows_differ_in_order_columns_and_values(other: list[dict[str, Any]]) -> None:
    rows = [{"a": "y"}, {"a": "x"}]
    assert rows_digest(rows) == rows_digest([dict(row) for row in rows])
    assert rows_digest(other) != rows_digest(rows)


class Thing:
    """Its text says where in memory it is."""


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (np.arange(3), np.arange(3) + 1),
        (torch.ones(2), torch.zeros(2)),
        (np.float32(1.5), np.float32(2.5)),
        (b"ab", b"ac"),
        ({"a", "b", "c"}, {"a", "b"}),
        (Path("a"), Path("b")),
        (Thing(), Path("b")),
    ],
)
def test_rows_of_other_things_than_json_have(value: Any, other: Any) -> None:
    assert rows_digest([{"a": value}]) == rows_digest([{"a": copy.deepcopy(value)}])
    assert rows_digest([{"a": value}]) != rows_digest([{"a": other}])


# Versions, threads


def test_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    then = described()
    monkeypatch.setattr(
        manifest, "version", lambda name: "9.9" if name == "lightning" else then["versions"][name]
    )
    monkeypatch.setattr(torch, "__version__", "1.13")
    found = differences(then, described(), config())
    assert [line.split(":")[0] for line in found] == ["lightning", "torch"]
    assert found[0].endswith("when the checkpoint was written, 9.9 now")


def test_plugins_count_where_the_config_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that offers `feedtune_plugins.backbones`, and one of which this run takes nothing."""

    def offer(version: str) -> None:
        used = Provider("used", "feedtune_plugins.backbones", "feedtune-used", version, None)
        unused = Provider("unused", "feedtune_unused", "feedtune-unused", version, None)
        monkeypatch.setattr(manifest, "providers", lambda: [used, unused])

    offer("1.0")
    then = described()
    assert then["versions"]["feedtune-used"] == "1.0"
    assert "feedtune-unused" not in then["versions"]
    offer("1.1")
    expected = "feedtune-used: 1.0 when the checkpoint was written, 1.1 now"
    assert differences(then, described(), config()) == [expected]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_number_of_threads_is_named(two_threads: None) -> None:
    now = described()
    [line] = differences({**now, "threads": 3}, now, config())
    assert line.startswith("threads: 3 when the checkpoint was written, 2 now")
    assert line.endswith("OMP_NUM_THREADS=3 sets them")


def test_of_what_is_not_said_nothing_is_known() -> None:
    assert differences({}, described(), config()) == []
