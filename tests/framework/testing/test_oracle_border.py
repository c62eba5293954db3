"""The oracle's rows as experience, and its tables in a real backbone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from feedtune.policy import Policy
from feedtune.scoring import score_actions
from feedtune.testing import oracle
from feedtune.testing.oracle import World
from feedtune_plugins.backbones.ngram import NGram
from feedtune_plugins.backbones.recurrent import Recurrent


def truncated_turns() -> World:
    return World(vocab_size=2, length=2, turns=2, reward="row", cut="truncated", seed=7)


WORLDS: dict[str, Callable[[], World]] = {
    "prompts": lambda: World(prompts=[(1,), (2, 0)], prompt_probability=[0.3, 0.7], seed=3),
    "five": lambda: World(vocab_size=5, length=2, eos=0, prompts=[(1, 2)], seed=5),
    "turns": lambda: World(vocab_size=3, length=2, turns=2, observation=2, seed=6),
    "truncated turns": truncated_turns,
}


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param]()


def test_experience_says_what_the_rows_say(world: World) -> None:
    rows = world.rows[::-1]
    exp = oracle.experience(rows, pad_id=world.eos)
    for i, row in enumerate(rows):
        assert exp.tokens[i][exp.mask[i]].tolist() == list(row.tokens)
        assert exp.tokens[i][~exp.mask[i]].eq(world.eos).all()
        assert exp.action[i][exp.mask[i]].tolist() == list(row.action)
        assert exp.reward[i][exp.action[i]].tolist() == row.earned.tolist()
    assert exp.score.tolist() == pytest.approx([row.score for row in rows])
    assert exp.reward.dtype == torch.float64
    assert exp.done.tolist() == [row.done for row in rows]
    assert exp.ended.tolist() == [row.ended for row in rows]
    assert exp.group.tolist() == [row.prompt for row in rows]
    assert oracle.experience(rows[:2], group=[4, 4], width=9).tokens.shape == (2, 9)


def test_rows_without_a_score_and_without_actions() -> None:
    pays = {((0,), 0): 1.0, ((0,), 1): 2.0, ((0, 0), 0): 8.0, ((0, 0), 1): 0.0}
    world = World(vocab_size=2, length=2, prompts=[(0,)], reward=lambda context, token: pays[context, token])
    exp = oracle.experience([world.rows[0].unscored(), world.rows[0].silent(), world.rows[2]])
    assert exp.scored.tolist() == [False, True, True]
    assert exp.score.tolist() == [0, 9, 2]
    assert exp.action.any(-1).tolist() == [False, False, True]
    assert exp.reward[1].tolist() == [0, 0, 9]
    assert oracle.token_logp(np.zeros((2, 2)), world.rows[0].silent()).tolist() == []


def table_of(world: World) -> NGram:
    longest = max(len(row.tokens) for row in world.rows)
    return NGram(vocab_size=world.vocab_size, n=longest + 1, buckets=6**longest).double()


def test_a_table_thinks_as_the_world_does(world: World) -> None:
    logits = world.random_logits(seed=11)
    backbone = table_of(world)
    table = oracle.Table(world, backbone)
    table.write(backbone.table.weight, logits)
    np.testing.assert_array_equal(table.read(backbone.table.weight), logits)
    scores = score_actions(Policy(backbone), oracle.experience(world.rows))
    torch.testing.assert_close(scores.logp, oracle.logp_tensor(world.rows, logits), rtol=0, atol=1e-14)
    (scores.logp.sum() * 0.5).backward()
    weights = [np.full(len(row.states), 0.5) for row in world.rows]
    gradient = backbone.table.weight.grad
    assert gradient is not None
    expected = oracle.weighted_score(logits, world.rows, weights)
    np.testing.assert_allclose(table.read(gradient), expected, rtol=0, atol=1e-12)


def test_values_stand_where_the_code_expects_them() -> None:
    world = truncated_turns()
    values = world.random_values(3)
    before, after = oracle.value_tensors(world.rows, values)
    for i, row in enumerate(world.rows):
        places = np.flatnonzero(row.action)
        assert before[i, places].tolist() == [values[world.index[row.tokens[:t]]] for t in places]
        assert after[i].item() == (0.0 if row.ended else values[world.index[row.tokens]])


def test_a_table_that_forgets_is_refused() -> None:
    world = World(vocab_size=2, length=3)
    with pytest.raises(ValueError, match="two states share a line"):
        oracle.Table(world, NGram(vocab_size=2, n=2))
    with pytest.raises(ValueError, match="expected a backbone that is a table"):
        oracle.Table(world, Recurrent(vocab_size=2, cell="gru", embed_size=4, hidden_size=4, layers=1))
