"""Whoever makes several mistakes hears of all of them at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feedtune.config.compose import compose_config
from feedtune.runs.mistakes import further
from small_runs import overrides


@pytest.fixture
def tiny(rows: Path) -> list[str]:
    return overrides(Path("rows.jsonl"), "transformer", "grpo", "report=false", "hydra.run.dir=run")


def lines(said: Any) -> list[str]:
    assert said.code == 2
    return sorted(said.err.removeprefix("feedtune: ").splitlines())


MISTAKES = {
    "optimizer.lr=-1": "optimizer.lr: Invalid learning rate: -1",
    "collector.group_size=3": "collector.group_size: 3 does not divide collector.responses=8",
    "scheduler.warmup=-1": "scheduler.warmup: expected at least 0, got -1",
    "algorithm.temperature=0": "algorithm.temperature: expected a number above 0, got 0",
    "reward.target=0": "reward.target: expected 1 or more, got 0",
    "backbone.heads=3": "backbone.",
    "trainer.max_epochs=0": "trainer.max_epochs: expected at least 1",
    "seed=-1": "seed: expected a whole number from 0 to",
    "checkpoint.keep=0": "checkpoint",
    "buffer.minibatches=0": "buffer.minibatches: expected at least 1, got 0",
    "evaluation.rows=0": "evaluation.rows: expected at least 1, got 0",
    "optimized_metric=eval/reward": "optimized_metric: eval/reward is measured while training only with",
}


def test_mistakes_in_all_parts_are_told_at_once(tiny: list[str], rows: Path, feedtune: Any) -> None:
    found = lines(feedtune("train", *tiny, *MISTAKES))
    assert [begin for begin in MISTAKES.values() if not any(line.startswith(begin) for line in found)] == []
    assert len(found) == len(MISTAKES), found


def test_mistakes_of_five_kinds_are_told_at_once(tiny: list[str], feedtune: Any) -> None:
    """Of no such key and option, of type and of range, and of two values that cannot go together."""
    typed = ["optimizer.lrr=1", "logger=csw", "trainer.max_epochs=many", "scheduler.warmup=-1"]
    found = lines(feedtune("train", *tiny, *typed, "collector.group_size=3"))
    assert len(found) == 5, found
    assert found[0].startswith("collector.group_size: 3 does not divide collector.responses=8")
    assert found[1].startswith("logger=csw: there is no such option. Did you mean 'csv'?")
    assert found[2].startswith("optimizer.lrr: there is no such key in 'optimizer'. Did you mean 'lr'?")
    assert found[3].startswith("scheduler.warmup: expected at least 0, got -1")
    assert found[4].startswith("trainer.max_epochs: expected a whole number or null, got 'many'")


def test_a_part_that_is_wrong_twice_is_told_once_by_each_check(tiny: list[str], feedtune: Any) -> None:
    """A wrong type hides what the constructor would say; the constructor's own first mistake the next."""
    found = lines(feedtune("train", *tiny, "optimizer.lr=abc", "optimizer.eps=-1", "seed=x"))
    assert found == ["optimizer.lr: expected a number, got 'abc'", "seed: expected a whole number, got 'x'"]


@pytest.mark.parametrize(
    ("typed", "begins"),
    [
        (
            ["collector.max_new_tokens=64"],
            "collector.max_new_tokens: 64 leaves no room for a prompt in backbone",
        ),
        (["buffer=replay"], "buffer: Replay brings back what earlier policies said"),
        (["buffer.minibatches=9"], "buffer.minibatches: 9 are more than the 8 rows"),
        (
            ["collector.group_size=1"],
            "collector: PolicyGradient needs groups, which Generate does not supply",
        ),
    ],
)
def test_parts_that_cannot_go_together(typed: list[str], begins: str, tiny: list[str], feedtune: Any) -> None:
    """Each beside a mistake of another part; what only a built policy tells comes when that one is mended."""
    assert any(line.startswith(begins) for line in lines(feedtune("train", *tiny, *typed)))
    if "supply" not in begins:
        both = lines(feedtune("train", *tiny, *typed, "scheduler.warmup=-1"))
        assert len(both) == 2, both
        assert [
            begin for begin in (begins, "scheduler.warmup") if not any(x.startswith(begin) for x in both)
        ] == []


def test_what_an_exchanged_part_lacks_and_that_it_does_not_fit(tiny: list[str], feedtune: Any) -> None:
    """Three keys of the collector before are unknown to the one that is chosen, which is not right either."""
    found = lines(feedtune("train", *tiny, "collector=offline"))
    assert {line.partition(": ")[0]: line for line in found}.keys() == {
        "collector",
        "collector.group_size",
        "collector.max_new_tokens",
        "collector.responses",
    }
    assert any(line.startswith("collector: Offline reads what others said, but Policy") for line in found)


def test_what_goes_together_is_told_by_classes_that_refuse_their_arguments(
    tiny: list[str], feedtune: Any
) -> None:
    mine = [one for one in tiny if not one.startswith("collector.")]
    found = lines(feedtune("train", *mine, "collector=offline", "collector.rows=0", "buffer=replay"))
    begins = [
        "buffer: Replay brings back what earlier policies said",
        "collector.rows: expected at least 1, got 0",
        "collector: Offline reads what others said",
    ]
    assert [line for line, begin in zip(found, begins, strict=True) if not line.startswith(begin)] == []


def test_a_misspelt_group_before_a_dot_has_its_nearest_name(tiny: list[str], feedtune: Any) -> None:
    """To add it would be refused by the next command."""
    (found,) = lines(feedtune("train", *tiny, "backbnoe.hidden=3"))
    begin = "backbnoe.hidden: there is no such key in the config. Did you mean 'backbone'? It has: seed, "
    assert found.startswith(begin)
    assert "+" not in found


@pytest.mark.parametrize("name", ["lbfgs", "sparseadam", "muon"])
def test_an_optimizer_that_is_left_out_says_why(name: str, tiny: list[str], feedtune: Any) -> None:
    (found,) = lines(feedtune("train", *tiny, f"optimizer={name}"))
    begin = f"optimizer={name}: there is no such option. That optimiser of torch is left out: it "
    assert found.startswith(begin)
    assert "Options of 'optimizer': adadelta, " in found


def test_where_nothing_is_wrong_nothing_is_found(tiny: list[str]) -> None:
    assert further(compose_config([one for one in tiny if not one.startswith("hydra")]), []) == []


def test_a_config_with_mistakes_can_be_printed(tiny: list[str], feedtune: Any) -> None:
    said = feedtune("train", *tiny, "optimizer.lr=abc", "collector.group_size=3", "--cfg", "job")
    assert said.code == 0
    assert "lr: abc\n" in said.out
