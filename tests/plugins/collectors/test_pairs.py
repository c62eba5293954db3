"""Pairs: every form in which preferences are stored, and how they are cut."""

from __future__ import annotations

from typing import Any

import pytest

from feedtune.contracts import Plan
from feedtune.errors import UserError
from feedtune_plugins.collectors import Pairs

ROWS = [
    {"prompt": "a b", "chosen": "c", "rejected": "d e"},
    {"prompt": "d", "chosen": "e f a", "rejected": "f", "margin": 2.5},
]


def words(kit: Any, tokens: Any) -> str:
    return " ".join(kit.words[t] for t in tokens)


def collected(kit: Any, rows: Any, context_length: int | None = None, **options: Any) -> Any:
    collector = Pairs(codec=kit.codec(), **options)
    items = collector.load(rows, context_length)
    return collector.collect(items, None, kit.generator())  # type: ignore[arg-type]


def test_two_neighbouring_rows_of_a_group_by_hand(kit: Any) -> None:
    rollout = collected(kit, ROWS)
    exp = rollout.experience
    texts = [words(kit, tokens[mask]) for tokens, mask in zip(exp.tokens, exp.mask, strict=True)]
    assert texts == ["a b c <eos>", "a b d e <eos>", "d e f a <eos>", "d f <eos>"]
    assert exp.group.tolist() == [0, 0, 1, 1]
    assert exp.action.tolist() == [
        [False, False, True, True, False],  # the answer and its end; the last is a pad
        [False, False, True, True, True],
        [False, True, True, True, True],
        [False, True, True, False, False],
    ]
    assert exp.score.tolist() == [1.0, 0.0, 2.5, 0.0]  # the second pair says by how much
    assert exp.reward[0].tolist() == [0, 0, 0, 1, 0]  # on the last action token
    assert exp.scored.all()
    assert exp.ended.all()
    assert rollout.metrics == {"rollout/length": 17 / 4}


def test_pairs_that_are_too_long_are_cut_dropped_or_refused(kit: Any) -> None:
    def lengths(too_long: Any) -> list[int]:
        return collected(kit, ROWS, 4, too_long=too_long).experience.lengths.tolist()

    assert lengths("truncate") == [4, 4, 4, 3]
    cut = collected(kit, ROWS, 4).experience
    assert cut.ended.tolist() == [True, False, False, True]
    assert cut.score.tolist() == [1.0, 0.0, 2.5, 0.0]
    with pytest.raises(UserError, match=r"^the task has no pair of answers that fits the context$"):
        lengths("drop")  # each pair has one answer that is too long
    with pytest.raises(UserError) as caught:
        lengths("refuse")
    said = "row 1: its 5 tokens do not fit the context of 4, and collector.too_long=refuse"
    assert str(caught.value) == said


def test_a_pair_of_which_an_answer_is_cut_off_entirely_is_dropped(kit: Any) -> None:
    """At a context of 2 the first prompt fills it, so nothing of its answers is left to compare."""
    exp = collected(kit, ROWS, 2).experience
    assert [words(kit, tokens) for tokens in exp.tokens] == ["d e", "d f"]


def test_an_epoch_is_one_pass(kit: Any) -> None:
    collector = Pairs(codec=kit.codec(), pairs=4)
    assert collector.plan(items=100, ranks=1) == Plan(collections=25, items=4, rows=8)
    assert collector.plan(items=100, ranks=5) == Plan(collections=5, items=4, rows=8)
    assert collector.plan(items=3, ranks=1) == Plan(collections=1, items=4, rows=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": 0}, "collector.pairs: expected at least 1, got 0"),
        ({"too_long": "cut"}, "collector.too_long: expected one of truncate, drop, refuse, got 'cut'."),
    ],
)
def test_wrong_values_are_refused_by_name(kit: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Pairs(codec=kit.codec(), **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("margin", "message"),
    [
        (0, "row 1: 'margin' must be above 0, the chosen answer's lead, got 0"),
        (-1.5, "row 1: 'margin' must be above 0, the chosen answer's lead, got -1.5"),
        ("much", "row 1: 'margin' must be a finite number or null, got 'much'"),
    ],
)
def test_a_margin_that_is_none(kit: Any, margin: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        collected(kit, [{**ROWS[0], "margin": margin}])
    assert str(caught.value) == message
    assert collected(kit, [{**ROWS[0], "margin": None}]).experience.score.tolist() == [1.0, 0.0]
