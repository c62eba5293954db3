"""Offline: rows as they are, cut into blocks, or too long."""

from __future__ import annotations

import math
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
    assert [list(row.action) for row in items] == [[False, True, True, True], [False] + [True] * 4]


@pytest.mark.parametrize("size", [2, 3, 4, 11])
def test_blocks_cover_all_tokens_once(kit: Any, size: int) -> None:
    blocks = Offline(codec=kit.codec(), block_size=size).load(TEXTS, context_length=64)
    whole = ["a", "b", "c", "<eos>", "d", "<eos>", "e", "f", "a", "b", "<eos>"]
    joined = [token for block in blocks for token in block.tokens]
    assert [kit.words[t] for t in joined] == whole[: len(whole) // size * size]  # but a last, short one
    assert {len(block.tokens) for block in blocks} == {size}
    # The first place of a block follows nothing; the first token of a text is none to learn (codec).
    begins = {0, 4, 6}
    learnt = [action for block in blocks for action in block.action]
    assert learnt == [i % size > 0 and i not in begins for i in range(len(joined))]


def test_blocks_have_no_pads(kit: Any) -> None:
    collector = Offline(codec=kit.codec(), block_size=3)
    exp = collector.collect(collector.load(TEXTS, None), None, kit.generator()).experience  # type: ignore[arg-type]
    assert exp.mask.all()
    assert not exp.action[:, 0].any()


def test_too_long_rows_are_cut_dropped_or_refused(kit: Any) -> None:
    def load(too_long: Any) -> list[str]:
        items = Offline(codec=kit.codec(), too_long=too_long).load(TEXTS, context_length=4)
        return [words(kit, row.tokens) for row in items]

    assert load("truncate") == ["a b c <eos>", "d <eos>", "e f a b"]
    assert load("drop") == ["a b c <eos>", "d <eos>"]
    with pytest.raises(UserError) as caught:
        load("refuse")
    said = "row 3: its 5 tokens do not fit the context of 4, and collector.too_long=refuse"
    assert str(caught.value) == said


def test_a_row_whose_answer_is_cut_off_is_dropped(kit: Any) -> None:
    items = Offline(codec=kit.codec()).load([{"prompt": "a b c d", "reference": "e"}, PAIRS[0]], 4)
    assert [words(kit, row.tokens) for row in items] == ["a b c <eos>"]
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


def test_a_column_of_rewards(kit: Any) -> None:
    """The number lands on the last action token; null is no opinion, and its row loses its actions."""
    rows = [{**PAIRS[0], "reward": 0.5}, {**PAIRS[1], "reward": None}, {**PAIRS[0], "reward": "-2"}]
    collector = Offline(codec=kit.codec(), rewards="column")
    rollout = collector.collect(collector.load(rows, None), None, kit.generator())  # type: ignore[arg-type]
    exp = rollout.experience
    assert exp.reward.tolist() == [[0, 0, 0, 0.5, 0], [0] * 5, [0, 0, 0, -2, 0]]
    assert exp.scored.tolist() == [True, False, True]
    assert exp.action.any(-1).tolist() == [True, False, True]
    mean = {"rollout/reward": -0.75, "rollout/unscored": 1 / 3, "rollout/length": 13 / 3}  # of .5 and -2
    assert rollout.metrics == pytest.approx(mean)


def test_another_column_may_hold_them(kit: Any) -> None:
    collector = Offline(codec=kit.codec(), rewards="column", reward_column="stars")
    assert [row.reward for row in collector.load([{**PAIRS[0], "stars": 4}], None)] == [4.0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"rewrd": 1.0}, "row 2: no column 'reward', found 'prompt', 'reference', 'rewrd'. "),
        ({"reward": math.nan}, "row 2: 'reward' must be a finite number or null, got nan"),
        ({"reward": "good"}, "row 2: 'reward' must be a finite number or null, got 'good'"),
        ({"reward": True}, "row 2: 'reward' must be a finite number or null, got True"),
        ({"reward": math.inf}, "row 2: 'reward' must be a finite number or null, got inf"),
        ({"reward": 10**400}, "row 2: 'reward' must be a finite number or null, got 1000"),
        ({"reward": [1.0]}, "row 2: 'reward' must be a finite number or null, got [1.0]"),
    ],
)
def test_what_is_no_reward_is_refused_by_name(kit: Any, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Offline(codec=kit.codec(), rewards="column").load(
            [{**PAIRS[0], "reward": 1}, {**PAIRS[1], **row}], context_length=None
        )
    assert str(caught.value).startswith(message)


def test_a_column_of_nothing_but_null_teaches_nothing(kit: Any) -> None:
    with pytest.raises(UserError) as caught:
        Offline(codec=kit.codec(), rewards="column").load([{**PAIRS[0], "reward": None}], None)
    assert str(caught.value) == "collector.reward_column: 'reward' is null in every row"


def test_the_source_scores_logged_responses_in_one_call(kit: Any) -> None:
    judge = kit.judge([0.5, math.nan], parts={"kind": [0.25, 0.75]})
    collector = Offline(codec=kit.codec(), reward=judge, rewards="source")
    talk = [{"role": r, "content": c} for r, c in [("user", "a"), ("assistant", "b"), ("user", "c")]]
    rows = [PAIRS[0], {"messages": talk, "reference": "d"}]
    items = collector.load(rows, None)
    assert judge.shown == []  # not before the rows are collected
    rollout = collector.collect(items, None, kit.generator())  # type: ignore[arg-type]
    plain, chat = judge.shown
    assert (plain.prompt, plain.response, plain.messages, plain.columns) == ("a b", "c", (), PAIRS[0])
    assert (chat.prompt, chat.response) == ("user: a\nassistant: b\nuser: c", "d")
    assert (list(chat.messages), chat.columns) == (talk, rows[1])
    assert rollout.experience.score.tolist() == [0.5, 0.0]
    assert rollout.experience.scored.tolist() == [True, False]
    assert rollout.experience.reward[0].tolist()[:4] == [0, 0, 0, 0.5]
    assert rollout.metrics["rollout/reward"] == 0.5
    assert rollout.metrics["rollout/reward/kind"] == 0.5
    assert rollout.metrics["rollout/unscored"] == 0.5


def test_a_cut_row_keeps_its_score_and_has_not_ended(kit: Any) -> None:
    collector = Offline(codec=kit.codec(), rewards="column")
    rows = [{**PAIRS[0], "reward": 1.0}, {**PAIRS[1], "reward": 2.0}]  # of 4 and of 5 tokens
    exp = collector.collect(collector.load(rows, 4), None, kit.generator()).experience  # type: ignore[arg-type]
    assert exp.score.tolist() == [1.0, 2.0]
    assert exp.ended.tolist() == [True, False]
    assert exp.done.all()


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
        (
            {"rewards": "colum"},
            "collector.rewards: expected one of none, column, source, got 'colum'. Did you mean 'column'?",
        ),
        (
            {"rewards": "column", "block_size": 8},
            "collector.block_size: rows joined into blocks have no score of their own; "
            "with collector.rewards=column leave it null",
        ),
        ({"rewards": "source"}, "collector.rewards: 'source' needs a reward source, and there is none"),
    ],
)
def test_wrong_values_are_refused_by_name(kit: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Offline(codec=kit.codec(), **options)
    assert str(caught.value) == message
