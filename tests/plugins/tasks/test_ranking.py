"""The ranking task: grades by hand, the old ranker against the model of Plackett and Luce."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.errors import UserError
from feedtune_plugins.tasks import ranking
from feedtune_plugins.tasks.ranking import Ranking

PAGES = {"music": ["song", "songs", "band"], "food": ["eat", "tea"]}


@pytest.fixture(scope="module", autouse=True)
def _few_conversations() -> Iterator[None]:
    """Of 4,017, the first ones, read once."""
    conversations = ranking.conversations
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "conversations", cache(lambda needed_by: conversations()[:300]))
        yield


def small(**options: Any) -> Ranking:
    return Ranking(**{"documents": PAGES, "eval_rows": 10, **options})


@pytest.mark.parametrize(
    ("query", "grades"),
    [
        ("a song?", {"music": 1, "food": 0}),
        ("Songs, a SONG, a band: all of them", {"music": 2, "food": 0}),  # three of its words
        ("song song", {"music": 1, "food": 0}),  # one word, twice
        ("let's eat and sing a song", {"music": 1, "food": 1}),
        ("great", {"music": 0, "food": 0}),  # "eat" is a part of another word
    ],
)
def test_grades_by_hand(query: str, grades: dict[str, int]) -> None:
    assert small().relevance(query) == grades


def test_rows_have_what_stages_need() -> None:
    train, held_out = small().load("train"), small().load("eval")
    for row in [*train, *held_out]:
        [message] = row["messages"]
        assert message["role"] == "user"
        assert message["content"] == message["content"].lower()
        assert row["relevance"] == small().relevance(message["content"])
        assert any(row["relevance"].values())
    assert {tuple(sorted(row["reference"].split())) for row in train} == {("food", "music")}
    assert not any("reference" in row for row in held_out)


def test_no_query_is_asked_twice() -> None:
    queries = [row["messages"][0]["content"] for split in ("train", "eval") for row in small().load(split)]
    assert len(set(queries)) == len(queries) > 50
    assert len(small().load("eval")) == 10
    assert len(small(rows=5).load("train")) == 5
    assert all(len(row["messages"][0]["content"].split()) <= 9 for row in small(max_words=9).load("train"))


def test_the_old_ranker_draws_from_plackett_and_luce() -> None:
    """Its orders of three against the product of choices, place by place."""
    grades, count = {"a": 0, "b": 2, "c": 1}, 20000
    task = small(knowledge=0.6, favour=0.5)
    generator = random.Random(0)
    seen = Counter(task._old_order(grades, generator) for _ in range(count))
    # strengths .6 x grade - .5 x place: 0, 1.2 - .5 = .7, .6 - 1 = -.4
    strength = {"a": 1.0, "b": math.exp(0.7), "c": math.exp(-0.4)}
    for order in itertools.permutations("abc"):
        left, chance = dict(strength), 1.0
        for title in order:
            chance *= left[title] / sum(left.values())
            left.pop(title)
        spread = math.sqrt(chance * (1 - chance) / count)
        assert abs(seen[" ".join(order)] / count - chance) < 4 * spread


def test_seed_alone_decides() -> None:
    assert small().load("train") == small().load("train")
    assert small(seed=1).load("eval") != small().load("eval")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"rows": 0}, r"task\.rows: expected a number from 1, got 0"),
        ({"eval_rows": 0}, r"task\.eval_rows: expected a number from 1, got 0"),
        ({"max_words": 0}, r"task\.max_words: expected a number from 1, got 0"),
        ({"knowledge": -1.0}, r"task\.knowledge: expected at least 0, got -1"),
        ({"favour": -1.0}, r"task\.favour: expected at least 0, got -1"),
        ({"documents": {"music": ["song"]}}, r"task\.documents: expected two or more to rank, got 1"),
        ({"documents": {**PAGES, "rock music": ["x"]}}, r"a title is one word.*got 'rock music'"),
        ({"documents": {**PAGES, "work": ["Job"]}}, r"task\.documents\.work: .*got 'Job'"),
        ({"documents": {**PAGES, "work": []}}, r"task\.documents\.work: .*got none"),
        (
            {"eval_rows": 10**6},
            r"task\.eval_rows: 1000000 rows and some to train on want more queries",
        ),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        small(**options).load("train")


def test_unknown_split_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="'train' or 'eval', got 'test'"):
        small().load("test")


def test_the_option_composes() -> None:
    config = compose_config(["task=ranking", "task.rows=30", "task.eval_rows=5"])
    rows = build(config.task, "task").load("train")
    assert len(rows) == 30
    assert set(rows[0]["relevance"]) == {"sports", "films", "music", "travel", "food", "school"}
