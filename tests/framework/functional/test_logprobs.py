"""Log-probabilities and entropy against torch.distributions and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical

from feedtune.functional import chosen_logp, entropy


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
