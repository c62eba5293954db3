"""The arithmetic task: questions and answers by hand, and nothing held out that training could give away."""

from __future__ import annotations

import re
from typing import Any

import pytest

from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.errors import UserError
from feedtune_plugins.tasks.arithmetic import Arithmetic, expression, result


def questions(rows: Any) -> list[str]:
    return [row["messages"][0]["content"] for row in rows]


def numbers(rows: Any) -> set[tuple[str, ...]]:
    return {tuple(sorted(re.findall(r"\d+", question))) for question in questions(rows)}


@pytest.mark.parametrize(
    ("numbers", "operations", "text", "answer"),
    [
        ((17, 5), ("+",), "17 + 5", 22),
        ((5, 17), ("-",), "5 - 17", -12),
        ((3, 4), ("*",), "3 * 4", 12),
        ((2, 3, 4), ("+", "*"), "2 + 3 * 4", 14),  # 12 first, then 2 more: "*" binds closer
        ((2, 3, 4), ("-", "*"), "2 - 3 * 4", -10),
        ((2, 3, 4), ("*", "-"), "2 * 3 - 4", 2),
        ((9, 4, 3), ("-", "-"), "9 - 4 - 3", 2),  # from the left: 9 - (4 - 3) would be 8
    ],
)
def test_questions_and_answers(
    numbers: tuple[int, ...], operations: tuple[str, ...], text: str, answer: int
) -> None:
    assert expression((numbers, operations)) == text
    assert result((numbers, operations)) == answer


def test_rows_are_chats_with_a_reference() -> None:
    rows = Arithmetic(largest=9, eval_rows=4, rows=10).load("train")
    assert len(rows) == 10
    for row in rows:
        [message] = row["messages"]
        assert message["role"] == "user"
        asked = re.fullmatch(r"What is (\d) \+ (\d)\? Answer with the number only\.", message["content"])
        assert asked is not None
        assert row["reference"] == str(int(asked[1]) + int(asked[2]))


def test_small_numbers_give_every_question_once() -> None:
    rows = Arithmetic(largest=3, operations=["+", "-"], eval_rows=0, question="{expression}").load("train")
    # 3 x 3 pairs of numbers under 2 operations
    assert sorted(questions(rows)) == sorted(
        f"{a} {sign} {b}" for a in (1, 2, 3) for b in (1, 2, 3) for sign in "+-"
    )


def test_no_question_is_held_out_that_is_trained_on_the_other_way_round() -> None:
    task = Arithmetic(largest=12, eval_rows=30)
    train, held_out = task.load("train"), task.load("eval")
    assert len(held_out) == len(numbers(held_out)) == 30
    assert not numbers(train) & numbers(held_out)
    assert len(numbers(train)) == 12 * 13 // 2 - 30  # every other pair is there


def test_operations_and_terms() -> None:
    rows = Arithmetic(operations=["+", "-", "*"], terms=3, rows=300, question="{expression}").load("train")
    signs = [tuple(question.split()[1::2]) for question in questions(rows)]
    assert {len(pair) for pair in signs} == {2}
    assert len(set(signs)) == 9
    assert any(row["reference"].startswith("-") for row in rows)


def test_numbers_reach_from_1_to_the_largest() -> None:
    rows = Arithmetic(largest=7, eval_rows=0).load("train")
    assert {int(n) for pair in numbers(rows) for n in pair} == set(range(1, 8))


def test_seed_alone_decides() -> None:
    assert Arithmetic().load("eval") == Arithmetic().load("eval")
    assert Arithmetic().load("train") == Arithmetic().load("train")
    assert Arithmetic(seed=1).load("eval") != Arithmetic().load("eval")


def test_millions_of_questions_are_not_made_in_vain() -> None:
    task = Arithmetic(largest=10**6, terms=3, rows=50, eval_rows=5)
    assert len(set(questions(task.load("train")))) == 50
    assert len(task.load("eval")) == 5


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"largest": 0}, r"task\.largest: expected a number from 1, got 0"),
        ({"terms": 1}, r"task\.terms: expected a number from 2, got 1"),
        ({"rows": 0}, r"task\.rows: expected a number from 1, got 0"),
        ({"eval_rows": -1}, r"task\.eval_rows: expected a number from 0, got -1"),
        ({"operations": []}, r"task\.operations: expected some of \['\+', '-', '\*'\], got \[\]"),
        ({"operations": ["/"]}, r"task\.operations: .*got \['/'\]"),
        ({"question": "What?"}, r"task\.question: expected a text with {expression} in it, got 'What\?'"),
        ({"largest": 10**9, "terms": 3}, r"task\.terms: 3 numbers up to 1000000000"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        Arithmetic(**options)


@pytest.mark.parametrize("eval_rows", [3, 4])  # 1 + 1, 1 + 2 and 2 + 2 are all there is
def test_more_held_out_than_there_is_is_refused(eval_rows: int) -> None:
    with pytest.raises(UserError, match=rf"task\.eval_rows: {eval_rows} rows.*than the 3 that differ"):
        Arithmetic(largest=2, eval_rows=eval_rows).load("train")


def test_unknown_split_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="'train' or 'eval', got 'test'"):
        Arithmetic().load("test")


def test_the_option_composes() -> None:
    config = compose_config(
        ["task=arithmetic", "task.largest=9", 'task.operations=["-"]', "task.eval_rows=2"]
    )
    rows = build(config.task, "task").load("eval")
    assert all(" - " in question for question in questions(rows))
