"""A prompt that a group shares is read once, and nobody can tell."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from feedtune import reading
from feedtune.contracts import Backbone
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune.reading import shared_prompts
from feedtune.scoring import head_values, score_actions
from feedtune.testing.rollouts import right_aligned

T, F = True, False


@pytest.fixture
def exp() -> Experience:
    """Two groups of three and two; prompts of three and one token; a turn of an observer in row 1."""
    return from_rows(
        [[1, 2, 3, 4], [1, 2, 3, 5, 6, 7, 8], [1, 2, 3, 4, 9], [5, 4, 3], [5, 2]],
        [[F, F, F, T], [F, F, F, T, F, T, T], [F, F, F, T, T], [F, T, T], [F, T]],
        group=[4, 4, 4, 7, 7],
    )


def read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "shared_prompts", lambda exp: None)


def test_what_is_shared(exp: Experience) -> None:
    found = shared_prompts(exp)
    assert found is not None
    assert found.first.tolist() == [0, 3]
    assert found.which.tolist() == [0, 0, 0, 1, 1]
    assert found.length.tolist() == [3, 3, 3, 1, 1]


@pytest.mark.parametrize(
    ("rows", "actions", "group"),
    [
        ([[1, 2, 3], [4, 2, 3]], [[F, T, T], [F, T, T]], [0, 0]),  # another prompt under the same number
        ([[1, 2, 3], [1, 2, 3]], [[F, T, T], [F, T, T]], [0, 1]),  # the same prompt by chance
        ([[1, 2, 3], [1, 2, 3]], [[F, T, T], [F, F, T]], [0, 0]),  # one prompt begins the other
        ([[1, 2, 3], [1, 2, 3]], [[F, T, T], [F, F, F]], [0, 0]),  # a row without actions
        ([[1, 2, 3]], [[F, T, T]], [0]),
    ],
)
def test_what_is_not(rows: list[list[int]], actions: list[list[bool]], group: list[int]) -> None:
    assert shared_prompts(from_rows(rows, actions, group=group)) is None


def test_nothing_is_shared_where_some_rows_have_pads_on_the_left() -> None:
    # Right-aligned, the answers of both groups begin in column 3; before it the first group has a pad and two
    # tokens, which from column 0 on would be read as a prompt of three.
    rows = [[1, 2, 3], [1, 2, 4], [5, 6, 7, 8], [5, 6, 7, 9]]
    exp = from_rows(rows, [[F, F, T]] * 2 + [[F, F, F, T]] * 2, group=[0, 0, 1, 1])
    assert shared_prompts(exp) is not None
    assert shared_prompts(right_aligned(exp)) is None


def test_scores_are_those_of_whole_rows(
    backbone: Backbone, exp: Experience, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(backbone, heads={"value": 1})
    torch.nn.init.normal_(next(iter(policy.heads["value"].parameters())))
    going_on = replace(exp, done=torch.zeros(len(exp), dtype=torch.bool))
    shared = score_actions(policy, exp)
    read_whole(monkeypatch)
    whole = score_actions(policy, exp)
    torch.testing.assert_close(shared.logp, whole.logp, atol=1e-5, rtol=0)
    torch.testing.assert_close(shared.entropy, whole.entropy, atol=1e-5, rtol=0)
    columns = torch.arange(exp.tokens.shape[1])
    asked = exp.mask & (columns >= torch.tensor([3, 3, 3, 1, 1])[:, None] - 1)  # from a prompt's last
    torch.testing.assert_close(shared.hidden[asked], whole.hidden[asked], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        head_values(policy, "value", going_on, shared.hidden)[1],
        head_values(policy, "value", going_on, whole.hidden)[1],
        atol=1e-5,
        rtol=1e-5,
    )


def gradient(policy: Policy, exp: Experience) -> torch.Tensor:
    """Of a loss that weighs every token differently."""
    policy.zero_grad()
    weights = torch.arange(1.0, exp.tokens.numel() + 1).view(exp.tokens.shape).sin()
    (score_actions(policy, exp).logp * weights).sum().backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


def test_gradients_are_those_of_whole_rows(
    backbone: Backbone, exp: Experience, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(backbone).train()
    shared = gradient(policy, exp)
    read_whole(monkeypatch)
    whole = gradient(policy, exp)
    assert whole.abs().max() > 0
    torch.testing.assert_close(shared, whole, atol=1e-5, rtol=1e-4)


def test_a_prompt_is_read_once(backbone: Backbone, exp: Experience, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    forward = backbone.forward

    def counting(tokens: torch.Tensor, *rest: object) -> object:
        shapes.append(tuple(tokens.shape))
        return forward(tokens, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(backbone, "forward", counting)
    score_actions(Policy(backbone), exp)
    assert shapes == [(2, 3), (5, 4)]  # both prompts, then what follows them


def test_a_backbone_without_state_reads_whole_rows(
    backbone: Backbone, exp: Experience, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy(backbone)
    expected = score_actions(policy, exp).logp
    forward = backbone.forward
    monkeypatch.setattr(backbone, "forward", lambda *given: (forward(*given)[0], None))
    torch.testing.assert_close(score_actions(policy, exp).logp, expected, atol=1e-5, rtol=0)
