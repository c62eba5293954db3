"""Start states of an environment as rows, and what they teach a tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

import text_environments
from feedtune.errors import UserError
from feedtune.text.tokenizers import TrainedTokenizer, texts_of
from feedtune_plugins.collectors import Gymnasium as Player
from feedtune_plugins.environments.making import make_environment
from feedtune_plugins.tasks.gymnasium import Gymnasium


def test_rows_are_first_observations_with_the_seeds_that_give_them() -> None:
    task = Gymnasium(env="tests/Parrot-v0", rows=20, eval_rows=5, seed=3)
    env = make_environment("tests/Parrot-v0", None, None, "task")
    held_out, rows = task.load("eval"), task.load("train")
    assert [row["seed"] for row in held_out] == list(range(3, 8))
    assert [row["seed"] for row in rows] == list(range(8, 28))
    assert [row["prompt"] for row in rows] == [env.reset(seed=row["seed"])[0] for row in rows]
    assert {row["prompt"] for row in rows} == {"lower", "higher"}


def test_a_tokenizer_learns_what_there_is_to_spell() -> None:
    task = Gymnasium(env="feedtune/CharText-v0", options={"alphabet": "abc"}, rows=2, eval_rows=0)
    codec = TrainedTokenizer(kind="char").build(lambda: texts_of(task.load("train")))
    known = set(codec.tokenizer.get_vocab()) - set(codec.tokenizer.all_special_tokens)
    assert known == set("abc")  # nothing but letters that are actions
    task = Gymnasium(env="tests/Guess-v0", rows=2, texts=["much too low"])
    found = TrainedTokenizer(kind="word", min_frequency=2).build(lambda: texts_of(task.load("train")))
    assert {"lower", "higher", "much", "too", "low", "012"} <= set(found.tokenizer.get_vocab())


def test_an_environment_that_wants_a_reward_needs_none_to_begin() -> None:
    for env in ("feedtune/CharText-v0", "feedtune/TextEdit-v0", "tests/Judged-v0"):
        assert len(Gymnasium(env=env, rows=3).load("train")) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "task.rows: expected a number from 1, got 0"),
        ({"eval_rows": -1}, "task.eval_rows: expected a number from 0, got -1"),
        ({"seed": -1}, "task.seed: expected a number from 0, got -1"),
        ({"env": "tests/Gess-v0"}, r"task.env: cannot find 'tests/Gess-v0'\. Did you mean 'tests/Guess-v0'"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Gymnasium(**{"env": "tests/Guess-v0", **options}).load("train")


def test_there_are_two_splits() -> None:
    with pytest.raises(ValueError, match="'train' or 'eval'"):
        Gymnasium(env="tests/Guess-v0").load("test")


def test_rows_of_another_environment_are_not_played() -> None:
    """`task.env` alone would say the first observations of one and play another."""
    rows = Gymnasium(env="tests/Guess-v0", rows=2).load("train")
    codec = text_environments.make_codec()
    assert Player(codec=codec, env="tests/Guess-v0").load(rows, None) == rows
    with pytest.raises(UserError, match=r"task\.env: .*tests/Guess-v0, but collector\.env=tests/Parrot-v0"):
        Player(codec=codec, env="tests/Parrot-v0").load(rows, None)
