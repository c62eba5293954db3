"""Log-probabilities and entropy against torch.distributions and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical

from feedtune.functional import chosen_logp, chosen_logp_and_entropy


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Alone; which token is asked for beside it plays no part."""
    first = torch.zeros(logits.shape[:-1], dtype=torch.long)
    return chosen_logp_and_entropy(logits, first)[1]


def test_goldens() -> None:
    # exp(logits) = 1, 1, 2: probabilities 1/4, 1/4, 1/2; entropy 1.5 log 2.
    logits = torch.tensor([[0.0, 0.0, math.log(2)]] * 2)
    assert chosen_logp(logits, torch.tensor([0, 2])).exp().tolist() == pytest.approx([0.25, 0.5])
    assert entropy(logits).tolist() == pytest.approx([1.5 * math.log(2)] * 2)


def test_agree_with_torch_distributions_in_any_shape() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 4 * torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    tokens = torch.randint(7, (3, 5), generator=generator)
    categorical = Categorical(logits=logits)
    torch.testing.assert_close(chosen_logp(logits, tokens), categorical.log_prob(tokens))
    torch.testing.assert_close(entropy(logits), categorical.entropy())


def test_entropy_gradient_agrees_with_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    mine = torch.autograd.grad(entropy(logits).sum(), logits)[0]
    theirs = torch.autograd.grad(Categorical(logits=logits).entropy().sum(), logits)[0]
    torch.testing.assert_close(mine, theirs)


def test_impossible_tokens_add_nothing_and_give_no_nan() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0]], requires_grad=True)
    found = entropy(logits)
    assert found.item() == pytest.approx(math.log(2))
    gradient = torch.autograd.grad(found.sum() + chosen_logp(logits, torch.tensor([0])).sum(), logits)[0]
    assert gradient.tolist()[0] == pytest.approx([0.5, 0.0, -0.5])  # of log p(0) alone: 1 - 1/2, 0, -1/2


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[1e4, 1e4 - 1, -1e4]])
    # log-softmax of (0, -1): log p(0) = -log(1 + 1/e) = -0.3133
    assert chosen_logp(logits, torch.tensor([0])).item() == pytest.approx(-math.log(1 + math.exp(-1)))
    assert math.isfinite(entropy(logits).item())


def test_gradients_by_hand_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(5, (2, 3), generator=generator)
    weights = torch.randn(2, 2, 3, generator=generator, dtype=torch.float64)

    def both(values: torch.Tensor) -> torch.Tensor:
        logp, spread = chosen_logp_and_entropy(values, tokens)
        return (weights[0] * logp + weights[1] * spread).sum()

    assert torch.autograd.gradcheck(both, [logits])
    assert torch.autograd.gradcheck(lambda values: chosen_logp_and_entropy(values, tokens)[0], [logits])
    assert torch.autograd.gradcheck(lambda values: chosen_logp_and_entropy(values, tokens)[1], [logits])
    assert torch.autograd.gradcheck(lambda values: chosen_logp(values, tokens), [logits])


def test_backward_by_hand_in_a_golden() -> None:
    # p = 1/4, 1/4, 1/2 and H = 1.5 log 2. d log p(2) = -p + (0, 0, 1); d H = -p (log p + H):
    # -1/4 (-2 + 1.5) log 2 = log(2) / 8 twice, and -1/2 (-1 + 1.5) log 2 = -log(2) / 4
    logits = torch.tensor([[0.0, 0.0, math.log(2)]], requires_grad=True)
    logp, spread = chosen_logp_and_entropy(logits, torch.tensor([2]))
    alone = torch.autograd.grad(logp.sum(), logits, retain_graph=True)[0]
    assert alone.tolist()[0] == pytest.approx([-0.25, -0.25, 0.5])
    of_spread = torch.autograd.grad(spread.sum(), logits)[0]
    assert of_spread.tolist()[0] == pytest.approx([math.log(2) / 8, math.log(2) / 8, -math.log(2) / 4])
