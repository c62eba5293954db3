"""A sum of rewards: its arithmetic, rows without an opinion, its parts, and how it is composed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from feedtune.contracts import RewardSource, Sample, Scores
from feedtune.errors import UserError
from feedtune_plugins.rewards.sum import Sum

CONF = Path(__file__).parents[3] / "conf"
NAN = math.nan


@dataclass
class Fixed:
    """Says what it is told to; a dataclass, since those are what OmegaConf would take apart."""

    scores: Sequence[float]

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        return list(self.scores[: len(samples)])


def run(rows: int = 3, **options: Any) -> Scores:
    return Sum(**options)([Sample("Hi", "Ho")] * rows)


def test_it_adds_weighted_scores_and_keeps_the_raw_ones() -> None:
    # 2 x 1 - 3 x 10, 2 x 2 - 3 x 20, 2 x 3 - 3 x 30
    scores = run(sources={"a": Fixed([1, 2, 3]), "b": Fixed([10, 20, 30])}, weights={"a": 2, "b": -3})
    assert scores.total.tolist() == [-28, -56, -84]
    assert {name: part.tolist() for name, part in scores.parts.items()} == {"a": [1, 2, 3], "b": [10, 20, 30]}


def test_the_weight_is_1_where_none_is_given() -> None:
    assert run(sources={"a": Fixed([1, 2, 3]), "b": Fixed([10, 20, 30])}).total.tolist() == [11, 22, 33]


@pytest.mark.parametrize(
    ("missing", "weights", "expected"),
    [
        ("nan", {}, [11, NAN, NAN, NAN]),
        ("ignore", {}, [11, 20, 3, NAN]),
        ("ignore", {"b": -1}, [-9, -20, 3, NAN]),
        # With weight 0 it has no say, not even by its silence.
        ("nan", {"b": 0}, [1, NAN, 3, NAN]),
        ("ignore", {"b": 0}, [1, NAN, 3, NAN]),
    ],
)
def test_a_source_without_an_opinion(missing: str, weights: dict[str, float], expected: list[float]) -> None:
    sources = {"a": Fixed([1, NAN, 3, NAN]), "b": Fixed([10, 20, NAN, NAN])}
    scores = run(rows=4, sources=sources, weights=weights, missing=missing)
    assert scores.total.tolist() == pytest.approx(expected, nan_ok=True)
    assert scores.parts["b"].tolist() == pytest.approx([10, 20, NAN, NAN], nan_ok=True)


def test_a_nested_sums_parts_carry_its_name() -> None:
    inner = Sum(sources={"b": Fixed([10, 20, 30]), "c": Fixed([1, 1, 1])}, weights={"c": 5})
    scores = run(sources={"a": Fixed([1, 2, 3]), "inner": Sum(sources={"deep": inner})}, weights={"inner": 2})
    assert scores.total.tolist() == [1 + 2 * 15, 2 + 2 * 25, 3 + 2 * 35]
    assert {name: part.tolist() for name, part in scores.parts.items()} == {
        "a": [1, 2, 3],
        "inner": [15, 25, 35],
        "inner/deep": [15, 25, 35],
        "inner/deep/b": [10, 20, 30],
        "inner/deep/c": [1, 1, 1],
    }


def broken(samples: Sequence[Sample]) -> list[float]:
    raise KeyError("lexicon")


def refusing(samples: Sequence[Sample]) -> list[float]:
    raise UserError("row 0 has no column 'reference'")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            broken,
            "reward.sources.bad: reward 'broken' failed on 3 samples (the first prompt: 'Hi'): "
            "KeyError: 'lexicon'",
        ),
        (refusing, "reward.sources.bad: row 0 has no column 'reference'"),
        (Fixed([1, 2]), "reward.sources.bad: reward 'Fixed': expected 3 scores"),
        (Fixed([1, math.inf, 2]), "reward.sources.bad: reward 'Fixed': the score of row 2 is infinite"),
    ],
)
def test_a_source_that_fails_is_named(source: RewardSource, message: str) -> None:
    with pytest.raises(UserError) as caught:
        run(sources={"good": Fixed([1, 2, 3]), "bad": source})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": {}}, "reward.sources: expected at least one"),
        ({"sources": {"a": {"target": 3}}}, "reward.sources.a: expected a reward with a _target_, got dict"),
        ({"sources": {"a": None}}, "reward.sources.a: expected a reward with a _target_, got NoneType"),
        (
            {"sources": {"length": Fixed([1])}, "weights": {"lenght": 2}},
            "reward.weights.lenght: no source has this name; there are: length. Did you mean 'length'?",
        ),
        ({"sources": {"a": Fixed([1])}, "weights": {"a": 0}}, "reward.weights: all are 0"),
        (
            {"sources": {"a": Fixed([1])}, "missing": "zero"},
            "reward.missing: expected one of nan, ignore; got 'zero'",
        ),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Sum(**options)
    assert message in str(caught.value)


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(overrides=["+reward=sum", *overrides]).reward)


# "good" has VADER's valence 1.9: 1.9 / sqrt(1.9^2 + 15) = .4404. One word for 20: 1/20.
GOOD = 0.4404


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {"sentiment": GOOD, "length": 1 / 20}),
        (["reward.sources.length.target=2"], {"sentiment": GOOD, "length": 1 / 2}),
        (
            ["+reward@reward.sources.polite=keyword", "reward.sources.polite.words=[good,bad]"],
            {"sentiment": GOOD, "length": 1 / 20, "polite": 1 / 2},
        ),
        (["~reward.sources.length", "~reward.weights.length"], {"sentiment": GOOD}),
        (["reward@reward.sources.sentiment=keyword"], {"sentiment": 0.0, "length": 1 / 20}),
        (
            ["+reward@reward.sources.more=sum", "reward.sources.more.sources.length.target=4"],
            {
                "sentiment": GOOD,
                "length": 1 / 20,
                "more": GOOD + 1 / 8,  # its own length weighs 1/2
                "more/sentiment": GOOD,
                "more/length": 1 / 4,
            },
        ),
    ],
)
def test_sources_are_added_set_and_dropped_on_the_command_line(
    overrides: list[str], expected: dict[str, float]
) -> None:
    scores = composed(*overrides)([Sample("Hi", "good")])
    assert {name: float(part) for name, part in scores.parts.items()} == pytest.approx(expected, abs=1e-6)


def test_weights_are_set_on_the_command_line() -> None:
    source = composed(
        "reward.weights.length=-2", "+reward@reward.sources.polite=keyword", "+reward.weights.polite=0"
    )
    assert source([Sample("Hi", "good")]).total.tolist() == pytest.approx([GOOD - 2 / 20], abs=1e-6)


def test_an_empty_batch_has_no_scores() -> None:
    scores = run(rows=0, sources={"a": Fixed([1])})
    assert scores.total.shape == scores.parts["a"].shape == (0,)
    assert scores.total.dtype == torch.float32
