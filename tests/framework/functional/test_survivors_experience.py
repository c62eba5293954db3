"""Experience and scoring where slips hide: empty and short rows, one part, half the rows, who recomputes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from feedtune import scoring
from feedtune.experience import Experience, from_rows, place_scores
from feedtune.policy import Policy
from feedtune.reading import shared_prompts
from feedtune.scoring import score_actions, states_at_end
from feedtune_plugins.backbones.ngram import NGram

T, F = True, False


def uneven() -> Experience:
    """A row of nothing, one of one token, one of two; the last has an action."""
    return from_rows([[], [1], [1, 2]], [[], [F], [F, T]], scores=[3.0, 4.0, 5.0])


def test_each_step_count_wins_by_itself() -> None:
    exp = uneven()
    assert (replace(exp, step_tokens=40.0).token_count, replace(exp, step_rows=20.0).row_count) == (40, 20)
    assert (int(replace(exp, step_rows=20.0).token_count), int(replace(exp, step_tokens=40.0).row_count)) == (
        1,
        1,
    )


def test_a_row_without_actions_keeps_its_score_however_short() -> None:
    assert uneven().reward.tolist() == [[3, 0], [4, 0], [0, 5]]
    assert not from_rows([[1, 2]], [[F, T]]).reward.any()  # no scores: 0


def test_there_is_always_a_column() -> None:
    assert from_rows([[]], [[]]).tokens.shape == (1, 1)
    assert from_rows([[]], [[]]).trim().tokens.shape == (1, 1)
    assert uneven()[:1].trim().tokens.shape == (1, 1)
    assert uneven()[:0].trim().tokens.shape == (0, 1)


def test_trim_looks_at_columns_not_at_rows() -> None:
    exp = from_rows([[1, 2], [1, 2], [1, 2, 3, 4]], [[F, T], [F, T], [F, T, T, T]])
    assert exp[:2].trim().tokens.shape == (2, 2)


def test_columns_of_columns_are_widened_along_tokens() -> None:
    narrow, wide = from_rows([[1, 2]], [[F, T]]), from_rows([[1, 2, 0]], [[F, T, T]])
    parts = [part.with_(hidden=torch.ones(*part.tokens.shape, 4)) for part in (narrow, wide)]
    joined = Experience.cat(parts).extra["hidden"]
    assert joined.shape == (2, 3, 4)
    assert joined.sum(-1).tolist() == [[4, 4, 0], [4, 4, 4]]


def test_pads_in_front_are_trimmed_too() -> None:
    exp = from_rows([[1, 2], [1, 2, 3]], [[F, T], [F, T, T]], scores=[1.0, 2.0])
    wide = exp.padded(2, 1)
    assert wide.tokens.tolist() == [[0, 0, 1, 2, 0, 0], [0, 0, 1, 2, 3, 0]]
    assert wide.ends.tolist() == [3, 4]
    for name, value in wide.trim().tensors().items():
        assert torch.equal(value, exp.tensors()[name]), name


def test_a_score_lands_on_the_last_token_wherever_the_row_stands() -> None:
    exp = from_rows([[1, 2], [1, 2]], [[F, F], [F, T]]).padded(1, 1)
    assert place_scores(exp, torch.tensor([3.0, 4.0])).reward.tolist() == [[0, 0, 3, 0], [0, 0, 4, 0]]


def test_one_part_is_the_whole() -> None:
    exp = uneven()
    assert Experience.cat([exp]).tokens.tolist() == exp.tokens.tolist()


def uniform() -> Policy:
    """Three tokens, each as likely as the others."""
    return Policy(NGram(vocab_size=3, n=2))


def test_the_state_at_the_end_of_short_rows() -> None:
    # Column of the last real token: 0, and 1 in the row of two; a row of nothing has the first pad's
    hidden = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]], [[5.0], [6.0]]])
    assert states_at_end(hidden, uneven()).squeeze(-1).tolist() == [1, 3, 6]


def test_two_rows_can_share_and_half_new_prompts_are_few_enough() -> None:
    rows, actions = [[1, 2, 0], [1, 2, 1], [2, 2, 0], [2, 2, 1]], [[F, F, T]] * 4
    exp = from_rows(rows, actions, group=[0, 0, 1, 1])
    for some, firsts in ((exp[:2], [0]), (exp, [0, 2])):
        found = shared_prompts(some)
        assert found is not None
        assert found.first.tolist() == firsts


def test_a_long_prompt_beside_a_long_answer() -> None:
    # Read from the end of the first prompt on, five tokens would end after the last column
    rows = [[1, 2, 0, 1, 2], [1, 2, 0, 1, 0], [0, 1, 2, 0, 1, 2], [0, 2, 1, 0, 2, 1]]
    actions = [[F, F, F, F, T]] * 2 + [[F, T, T, T, T, T]] * 2
    exp = from_rows(rows, actions, group=[0, 0, 1, 1])
    assert shared_prompts(exp) is not None
    policy = Policy(NGram(vocab_size=3, n=3))
    torch.nn.init.normal_(policy.backbone.table.weight)  # type: ignore[union-attr,arg-type]
    together = score_actions(policy, exp).logp
    for row in range(4):
        alone = exp[row : row + 1].trim()
        assert (
            together[row, : alone.tokens.shape[1]].tolist() == score_actions(policy, alone).logp[0].tolist()
        )


def test_a_single_row_without_actions_has_no_prompt_to_share() -> None:
    exp = from_rows([[1, 2, 0]] * 4, [[F, F, T]] * 3 + [[F, F, F]], group=[0] * 4)
    assert shared_prompts(exp) is None


@pytest.mark.parametrize(
    ("at_once", "with_gradient", "calls"),
    [
        (4, True, 1),  # all four tokens at once: nothing to save
        (3, True, 4),  # two pieces, each computed again in the backward pass
        (3, False, 2),
        (0, False, 4),  # not even one token fits: one at a time all the same
    ],
)
def test_logits_are_computed_again_only_to_save_memory(
    at_once: int, with_gradient: bool, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = uniform()
    seen: list[int] = []
    plain = policy.action_logits
    monkeypatch.setattr(policy, "action_logits", lambda hidden: seen.append(len(hidden)) or plain(hidden))
    monkeypatch.setattr(scoring, "ROWS_AT_ONCE", 1)
    for limit in ("LOGITS_AT_ONCE", "LOGITS_KEPT"):
        monkeypatch.setattr(scoring, limit, at_once * policy.backbone.vocab_size)
    exp = from_rows([[1, 2, 0, 1, 2]], [[F, T, T, T, T]])
    with torch.set_grad_enabled(with_gradient):
        logp = score_actions(policy, exp, with_entropy=False).logp
    if with_gradient:
        logp.sum().backward()  # type: ignore[no-untyped-call]
    assert len(seen) == calls
