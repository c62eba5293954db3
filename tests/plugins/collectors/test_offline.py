"""Offline: rows as they are, cut into blocks, or too long."""

from __future__ import annotations

from typing import Any

import pytest

from feedtune.contracts import Plan
from feedtune.errors import UserError
from feedtune_plugins.collectors import Offline

TEXTS = [{"text": "a b c"}, {"text": "d"}, {"text": "e f a b"}]  # with their ends 4 + 2 + 5 = 11 tokens
PAIRS = [{"prompt": "a b", "reference": "c"}, {"prompt": "d", "reference": "e f a"}]


def words(kit: Any, tokens: Any) -> str:
    return " ".join(kit.words[t] for t in tokens)


def test_experience_by_hand(kit: Any) -> None:
    collector = Offline(codec=kit.codec(), rows=2)
    items = collector.load(PAIRS, context_length=None)
    rollout = collector.collect(items, None, kit.generator())  # type: ignore[arg-type]
    exp = rollout.experience
    assert words(kit, exp.tokens[0]) == "a b c <eos> <eos>"  # the last is a pad
    assert exp.mask[0].tolist() == [True] * 4 + [False]
    assert exp.action[0].tolist() == [False, False, True, True, False]  # the reference and its end
    assert words(kit, exp.tokens[1]) == "d e f a <eos>"
    assert exp.action[1].tolist() == [False, True, True, True, True]
    assert not exp.reward.any()
    assert exp.scored.all()
    assert rollout.metrics == {"rollout/length": 4.5}


def test_loss_on_all_learns_the_prompt_too_but_never_the_first_token(kit: Any) -> None:
    items = Offline(codec=kit.codec(), loss_on="all").load(PAIRS, None)
    assert [list(action) for _, action in items] == [[False, True, True, True], [False] + [True] * 4]


@pytest.mark.parametrize("size", [2, 3, 4, 11])
def test_blocks_cover_all_tokens_once(kit: Any, size: int) -> None:
    blocks = Offline(codec=kit.codec(), block_size=size).load(TEXTS, context_length=64)
    whole = ["a", "b", "c", "<eos>", "d", "<eos>", "e", "f", "a", "b", "<eos>"]
    joined = [token for tokens, _ in blocks for token in tokens]
    assert [kit.words[t] for t in joined] == whole[: len(whole) // size * size]  # but a last, short one
    assert {len(tokens) for tokens, _ in blocks} == {size}
    # The first place of a block follows nothing; the first token of a text is none to learn (codec).
    begins = {0, 4, 6}
    learnt = [action for _, actions in blocks for action in actions]
    assert learnt == [i % size > 0 and i not in begins for i in range(len(joined))]


def test_blocks_have_no_pads(kit: Any) -> None:
    collector = Offline(codec=kit.codec(), block_size=3)
    exp = collector.collect(collector.load(TEXTS, None), None, kit.generator()).experience  # type: ignore[arg-type]
    assert exp.mask.all()
    assert not exp.action[:, 0].any()


def test_too_long_rows_are_cut_dropped_or_refused(kit: Any) -> None:
    def load(too_long: Any) -> list[str]:
        items = Offline(codec=kit.codec(), too_long=too_long).load(TEXTS, context_length=4)
        return [words(kit, tokens) for tokens, _ in items]

    assert load("truncate") == ["a b c <eos>", "d <eos>", "e f a b"]
    assert load("drop") == ["a b c <eos>", "d <eos>"]
    with pytest.raises(UserError) as caught:
        load("refuse")
    assert str(caught.value) == "row 3: its 5 tokens do not fit the context of 4"


def test_a_row_whose_answer_is_cut_off_is_dropped(kit: Any) -> None:
    items = Offline(codec=kit.codec()).load([{"prompt": "a b c d", "reference": "e"}, PAIRS[0]], 4)
    assert [words(kit, tokens) for tokens, _ in items] == ["a b c <eos>"]
    with pytest.raises(UserError, match="no row with a token to learn from"):
        Offline(codec=kit.codec()).load([{"prompt": "a b c d", "reference": "e"}], 4)


def test_an_epoch_is_one_pass(kit: Any) -> None:
    collector = Offline(codec=kit.codec(), rows=4)
    assert collector.plan(items=100, ranks=1) == Plan(collections=25, items=4, rows=4)
    assert collector.plan(items=100, ranks=5) == Plan(collections=5, items=4, rows=4)
    assert collector.plan(items=3, ranks=1) == Plan(collections=1, items=4, rows=4)


def test_blocks_that_cannot_be_are_refused(kit: Any) -> None:
    with pytest.raises(UserError, match=r"^collector\.block_size: 9 is more than the backbone's context"):
        Offline(codec=kit.codec(), block_size=9).load(TEXTS, context_length=8)
    with pytest.raises(UserError, match=r"^collector\.block_size: the task has 11 tokens in all"):
        Offline(codec=kit.codec(), block_size=12).load(TEXTS, context_length=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "collector.rows: expected at least 1, got 0"),
        ({"block_size": 1}, "collector.block_size: expected at least 2, got 1"),
        (
            {"loss_on": "asistant"},
            "collector.loss_on: expected one of assistant, all, got 'asistant'. Did you mean 'assistant'?",
        ),
        (
            {"too_long": "cut"},
            "collector.too_long: expected one of truncate, drop, refuse, got 'cut'.",
        ),
    ],
)
def test_wrong_values_are_refused_by_name(kit: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Offline(codec=kit.codec(), **options)
    assert str(caught.value) == message
