"""score_actions and the heads against a full forward pass and torch.distributions."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical

from feedtune import scoring
from feedtune.contracts import Backbone
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune.scoring import head_values, scatter, score_actions, states_before

T, F = True, False


@pytest.fixture
def exp() -> Experience:
    """Two turns; a row of one action; a row without; a row as long as the batch."""
    return from_rows(
        [[1, 2, 3, 4, 5, 6], [7, 8], [1, 2, 3], [9, 8, 7, 6, 5, 4, 3]],
        [[F, T, T, F, T, F], [F, T], [F, F, F], [F, F, T, T, T, T, T]],
    )


def expected_distribution(policy: Policy, exp: Experience) -> Categorical:
    """Of token t at [.., t], from every logit of every position; column 0 is meaningless."""
    hidden, _ = policy.backbone(exp.tokens, exp.mask)
    logits = policy.backbone.unembed(hidden).float() / policy.temperature
    return Categorical(logits=logits.roll(1, dims=1))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_logp_and_entropy_agree_with_the_full_pass(
    backbone: Backbone, exp: Experience, temperature: float
) -> None:
    policy = Policy(backbone, temperature=temperature)
    found = score_actions(policy, exp)
    expected = expected_distribution(policy, exp)
    torch.testing.assert_close(found.logp, torch.where(exp.action, expected.log_prob(exp.tokens), 0))
    torch.testing.assert_close(found.entropy, torch.where(exp.action, expected.entropy(), 0))


def test_no_token_counts_itself_or_what_follows(backbone: Backbone) -> None:
    """Changing token t changes log-probabilities from t on, and of t only by what was asked for."""
    policy = Policy(backbone)
    one = from_rows([[1, 2, 3, 4, 5]], [[F, T, T, T, T]])
    other = from_rows([[1, 2, 9, 4, 5]], [[F, T, T, T, T]])
    before, after = score_actions(policy, one).logp[0], score_actions(policy, other).logp[0]
    assert before[1].item() == pytest.approx(after[1].item(), abs=1e-6)
    assert (before[2:4] - after[2:4]).abs().min() > 1e-4  # token 2 itself, and token 3 given it


def gradients(policy: Policy, exp: Experience, entropy_gradient: bool) -> tuple[Tensor, ...]:
    found = score_actions(policy, exp, entropy_gradient)
    weights = torch.linspace(-1, 2, exp.tokens.numel()).view_as(found.logp)
    loss = (weights * found.logp).sum()
    if entropy_gradient:
        loss = loss + (weights * found.entropy).sum()
    parameters = [p for p in policy.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, parameters)
    return (found.logp, found.entropy, *grads)


@pytest.mark.parametrize("entropy_gradient", [False, True])
@pytest.mark.parametrize("rows_at_once", [1, 3, 8])
@pytest.mark.parametrize("kept", [0, 9])
def test_chunks_change_neither_values_nor_gradients(
    backbone: Backbone,
    exp: Experience,
    monkeypatch: pytest.MonkeyPatch,
    entropy_gradient: bool,
    rows_at_once: int,
    kept: int,
) -> None:
    policy = Policy(backbone.train(), temperature=0.7)
    whole = gradients(policy, exp, entropy_gradient)
    sizes: list[int] = []
    plain = policy.action_logits
    monkeypatch.setattr(policy, "action_logits", lambda h: sizes.append(len(h)) or plain(h))
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", rows_at_once * backbone.vocab_size)
    monkeypatch.setattr(scoring, "ROWS_AT_ONCE", 1)
    monkeypatch.setattr(scoring, "LOGITS_KEPT", kept * backbone.vocab_size)
    chunked = gradients(policy, exp, entropy_gradient)
    assert max(sizes) == rows_at_once  # 9 action tokens, never more at a time
    assert sum(sizes) == (9 if kept == 9 else 18)  # those that are not kept are made again
    for one, other in zip(whole, chunked, strict=True):
        torch.testing.assert_close(one, other)


def test_entropy_has_a_gradient_only_if_asked(backbone: Backbone, exp: Experience) -> None:
    policy = Policy(backbone)
    assert not score_actions(policy, exp).entropy.requires_grad
    assert score_actions(policy, exp).logp.requires_grad
    mine = torch.autograd.grad(
        score_actions(policy, exp, entropy_gradient=True).entropy.sum(), list(policy.parameters())
    )
    exact = torch.where(exp.action, expected_distribution(policy, exp).entropy(), 0).sum()
    theirs = torch.autograd.grad(exact, list(policy.parameters()))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_a_batch_without_actions_has_zeros_and_a_gradient_of_zero(backbone: Backbone) -> None:
    policy = Policy(backbone)
    found = score_actions(policy, from_rows([[1, 2], [3]], [[F, F], [F]]), entropy_gradient=True)
    assert not found.logp.any()
    assert not found.entropy.any()
    (found.logp.sum() + found.entropy.sum()).backward()
    assert all(p.grad is None or not p.grad.any() for p in policy.parameters())


def test_pads_leave_no_trace(backbone: Backbone, exp: Experience) -> None:
    """The same rows beside others or alone, whatever stands in the pads."""
    policy = Policy(backbone)
    together = score_actions(policy, replace(exp, tokens=torch.where(exp.mask, exp.tokens, 10)))
    for row in range(len(exp)):
        alone = exp[row : row + 1].trim()
        width = alone.tokens.shape[1]
        torch.testing.assert_close(score_actions(policy, alone).logp[0], together.logp[row, :width])


def randomised(policy: Policy) -> Policy:
    """Heads start at 0, where every mistake is right."""
    generator = torch.Generator().manual_seed(5)
    for parameter in policy.heads.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return policy


def test_values_read_the_state_before_each_token(backbone: Backbone, exp: Experience) -> None:
    policy = randomised(Policy(backbone, heads={"value": 1}))
    hidden, _ = policy(exp.tokens, exp.mask)
    every = policy.heads["value"](hidden).squeeze(-1)  # V after token t
    found, _ = head_values(policy, "value", exp, hidden)
    assert found[exp.action].abs().min() > 0
    torch.testing.assert_close(found[:, 1:], torch.where(exp.action[:, 1:], every[:, :-1], 0))
    assert not found[:, 0].any()


def test_bootstrap_reads_the_state_after_the_last_real_token(backbone: Backbone, exp: Experience) -> None:
    policy = randomised(Policy(backbone, heads={"value": 1}))
    going_on = replace(exp, done=torch.tensor([F, F, T, F]))
    hidden, _ = policy(exp.tokens, exp.mask)
    _, found = head_values(policy, "value", going_on, hidden)
    assert found[2] == 0
    for row in (0, 1, 3):
        tokens = exp.tokens[row : row + 1, : int(exp.lengths[row])]
        alone, _ = policy(tokens, torch.ones_like(tokens, dtype=torch.bool))
        torch.testing.assert_close(found[row], policy.heads["value"](alone[0, -1]).squeeze())
        assert found[row] != 0


def test_scatter_is_the_inverse_of_picking(exp: Experience) -> None:
    values = torch.arange(1.0, 10.0)
    placed = scatter(values, exp.action)
    assert torch.equal(placed[exp.action], values)
    assert not placed[~exp.action].any()
    hidden = torch.arange(float(exp.tokens.numel())).view(*exp.tokens.shape, 1)
    # action at (0,1), (0,2), (0,4), (1,1), (3,2) ... of width 7: the hidden state one column to the left
    assert states_before(hidden, exp.action).squeeze(-1).tolist() == [0, 1, 3, 7, 22, 23, 24, 25, 26]


def test_float64_backbones_are_scored_in_float64(exp: Experience, tiny_backbone: object) -> None:
    assert callable(tiny_backbone)
    policy = Policy(tiny_backbone("lstm").double(), heads={"value": 1})
    found = score_actions(policy, exp)
    assert found.logp.dtype == torch.float64
    assert head_values(policy, "value", exp, found.hidden)[0].dtype == torch.float64
    single = score_actions(copy.deepcopy(policy).float(), exp).logp
    error = (found.logp - single).abs().max()
    assert 0 < error < 1e-4


def test_half_precision_backbones_are_scored_in_float32(exp: Experience, tiny_backbone: object) -> None:
    assert callable(tiny_backbone)
    policy = Policy(tiny_backbone("transformer").bfloat16(), heads={"value": 1})
    found = score_actions(policy, exp)
    assert found.logp.dtype == torch.float32
    assert head_values(policy, "value", exp, found.hidden)[0].dtype == torch.float32
