"""Experience: masks from lengths, scores on the last action token, rows that travel together."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from feedtune.experience import Experience, from_rows, place_scores

T, F = True, False
NAN = float("nan")


@pytest.fixture
def exp() -> Experience:
    """Token 0 is a real token here and the pad too. The third row is not scored, the fourth has no action."""
    return from_rows(
        [[5, 0, 0], [5, 6, 7, 8, 0], [5, 6], [5, 6, 7]],
        [[F, T, T], [F, T, F, T, F], [F, T], [F, F, F]],
        scores=[1.0, 2.0, NAN, 4.0],
        group=[0, 0, 1, 1],
    )


def test_masks_come_from_lengths_even_where_pad_is_a_real_token(exp: Experience) -> None:
    assert exp.lengths.tolist() == [3, 5, 2, 3]
    assert exp.mask.tolist()[0] == [T, T, T, F, F]
    assert exp.tokens.tolist()[0] == [5, 0, 0, 0, 0]


def test_the_score_lands_on_the_last_action_token(exp: Experience) -> None:
    assert exp.reward.tolist() == [
        [0, 0, 1, 0, 0],
        [0, 0, 0, 2, 0],  # not on the observation after it
        [0, 0, 0, 0, 0],  # NaN is no reward of 0: the row is marked
        [0, 0, 4, 0, 0],  # without an action: on the last real token, where baselines see it
    ]
    assert exp.score.tolist() == [1, 2, 0, 4]


def test_a_row_that_is_not_scored_loses_its_actions(exp: Experience) -> None:
    assert exp.scored.tolist() == [T, T, F, T]
    assert exp.action.tolist()[2] == [F] * 5


def test_last_and_terminal(exp: Experience) -> None:
    half_done = replace(exp, done=torch.tensor([T, F, T, T]))
    assert half_done.last.nonzero().tolist() == [[0, 2], [1, 3]]
    assert half_done.terminal.nonzero().tolist() == [[0, 2]]


def test_counts_are_of_action_tokens_and_of_rows_that_have_them(exp: Experience) -> None:
    assert exp.token_count == 4
    assert exp.row_count == 2
    nothing = exp[torch.tensor([2, 3])]
    assert (int(nothing.token_count), int(nothing.row_count)) == (1, 1)  # denominators: never 0


def test_step_counts_win_over_own_counts(exp: Experience) -> None:
    told = replace(exp, step_tokens=40.0, step_rows=20.0)
    assert (told.token_count, told.row_count) == (40.0, 20.0)
    empty = replace(exp, step_tokens=0.0, step_rows=0.0)
    assert (empty.token_count, empty.row_count) == (1.0, 1.0)


def test_from_rows_refuses_an_action_that_nothing_precedes() -> None:
    with pytest.raises(ValueError, match="first token"):
        from_rows([[1, 2]], [[T, T]])


def test_from_rows_pads_with_the_given_token() -> None:
    assert from_rows([[1], [1, 2]], [[F], [F, T]], pad_id=9).tokens.tolist() == [[1, 9], [1, 2]]


def test_from_rows_of_rows_that_go_on() -> None:
    exp = from_rows([[1, 2]], [[F, T]], done=False)
    assert (exp.done.tolist(), exp.ended.tolist()) == ([F], [F])


def test_place_scores_moves_the_score_and_can_only_unmark() -> None:
    exp = from_rows([[1, 2, 3], [1, 2]], [[F, T, T], [F, T]], scores=[5.0, 6.0])
    found = place_scores(exp, torch.tensor([NAN, 7.0]))
    assert found.reward.tolist() == [[0, 0, 0], [0, 7, 0]]
    assert found.scored.tolist() == [F, T]
    assert found.action.tolist() == [[F, F, F], [F, T, F]]


def full(exp: Experience) -> Experience:
    """With every optional column, each entry different."""
    numbers = torch.arange(exp.tokens.numel(), dtype=torch.float32).view_as(exp.tokens)
    exp = replace(exp, sampler_logp=numbers, old_logp=numbers + 100, ref_logp=numbers + 200)
    return exp.with_(advantage=numbers + 300, bootstrap=torch.arange(float(len(exp))))


def same(one: Experience, other: Experience) -> None:
    mine, theirs = one.tensors(), other.tensors()
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert value.dtype == theirs[name].dtype, name
        assert torch.equal(value, theirs[name]), name
    assert (one.step_tokens, one.step_rows) == (other.step_tokens, other.step_rows)


def test_rows_take_everything_along_in_the_order_asked_for(exp: Experience) -> None:
    some = full(exp)[torch.tensor([3, 1, 1])]
    assert some.tokens[:, 2].tolist() == [7, 7, 7]
    assert some.score.tolist() == [4, 2, 2]
    assert some.extra["bootstrap"].tolist() == [3, 1, 1]
    assert torch.equal(some.extra["advantage"][1], full(exp).extra["advantage"][1])
    same(full(exp)[1:3], full(exp)[torch.tensor([1, 2])])


def test_trim_drops_common_pads_and_nothing_else(exp: Experience) -> None:
    some = full(exp)[torch.tensor([0, 2])]
    trimmed = some.trim()
    assert trimmed.tokens.shape == (2, 3)
    for name, value in trimmed.tensors().items():
        assert torch.equal(value, some.tensors()[name][..., :3] if value.dim() == 2 else some.tensors()[name])
    same(full(exp).trim(), full(exp))  # the longest row has no pad


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [(1, 0, [[0, 5, 6]]), (0, 2, [[5, 6, 0, 0]]), (-1, 0, [[6]]), (0, -1, [[5]]), (0, 0, [[5, 6]])],
)
def test_either_side_is_padded_and_cut_by_itself(left: int, right: int, expected: list[list[int]]) -> None:
    found = from_rows([[5, 6]], [[F, T]]).padded(left, right)
    assert found.tokens.tolist() == expected
    assert all(value.shape[:2] == found.tokens.shape for value in found.tensors().values() if value.dim() > 1)


def test_cat_pads_to_the_longest(exp: Experience) -> None:
    parts = [full(exp)[torch.tensor([0, 2])].trim(), full(exp)[torch.tensor([1, 3])]]
    joined = Experience.cat(parts)
    assert len(joined) == 4
    same(joined[:2].trim(), parts[0])
    same(joined[2:], parts[1])
    assert not joined.mask[:2, 3:].any()


def test_cat_keeps_only_columns_that_every_part_has(exp: Experience) -> None:
    joined = Experience.cat([full(exp), exp])
    assert joined.sampler_logp is None  # a column of 4 rows beside 8 would speak of the wrong ones
    assert joined.old_logp is None
    assert joined.ref_logp is None
    assert joined.extra == {}
    assert {len(value) for value in joined.tensors().values()} == {8}


def test_state_survives_a_checkpoint_that_loads_weights_only(exp: Experience) -> None:
    told = replace(full(exp), step_tokens=12.0)
    file = io.BytesIO()
    torch.save(told.state_dict(), file)
    file.seek(0)
    same(Experience.from_state_dict(torch.load(file, weights_only=True)), told)


def test_to_moves_every_tensor(exp: Experience) -> None:
    moved = full(exp).to("meta")
    assert {value.device.type for value in moved.tensors().values()} == {"meta"}
    assert moved.tensors().keys() == full(exp).tensors().keys()


def test_with_adds_to_extra_and_leaves_the_original(exp: Experience) -> None:
    columns: dict[str, Tensor] = {"a": torch.ones(4)}
    one = exp.with_(**columns)
    two = one.with_(b=torch.zeros(4))
    assert (set(exp.extra), set(one.extra), set(two.extra)) == (set(), {"a"}, {"a", "b"})
