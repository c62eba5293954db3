"""References: the policy as it was, at no cost where an adapter can be switched off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from feedtune.contracts import Backbone
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune.references import AdapterOff, FrozenCopy, reference_of
from feedtune.scoring import score_actions
from feedtune_plugins.backbones.ngram import NGram

T, F = True, False


@pytest.fixture
def exp() -> Experience:
    return from_rows([[1, 2, 3, 4], [5, 6]], [[F, T, F, T], [F, T]])


class Adapted(NGram):
    """A table plus a trained one that can be switched off: LoRA in miniature."""

    def __init__(self) -> None:
        super().__init__(vocab_size=11, n=2)
        generator = torch.Generator().manual_seed(0)
        self.table.weight.data = torch.randn(self.table.weight.shape, generator=generator)
        self.table.weight.requires_grad_(False)
        self.adapter = nn.Parameter(torch.zeros_like(self.table.weight))
        self.on = True
        self.adapter_off = self._off

    @contextmanager
    def _off(self) -> Iterator[None]:
        self.on = False
        yield
        self.on = True

    def unembed(self, hidden: Tensor) -> Tensor:
        logits = super().unembed(hidden)
        return logits + self.adapter[hidden.squeeze(-1)] if self.on else logits


def train_a_step(policy: Policy, exp: Experience) -> None:
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=1.0)
    score_actions(policy, exp).logp.sum().neg().backward()
    optimizer.step()


def test_frozen_copy_keeps_the_first_opinion(backbone: Backbone, exp: Experience) -> None:
    policy = Policy(backbone, temperature=0.5)
    first = score_actions(policy, exp).logp.detach()
    reference = reference_of(policy)
    assert isinstance(reference, FrozenCopy)
    train_a_step(policy, exp)
    torch.testing.assert_close(reference.logp(exp), first)  # torch's recurrent kernels round as they please
    assert (score_actions(policy, exp).logp - first).abs().max() > 1e-2


def test_adapter_off_keeps_the_first_opinion_without_a_copy(exp: Experience) -> None:
    policy = Policy(Adapted(), temperature=0.5)
    first = score_actions(policy, exp).logp.detach()
    reference = reference_of(policy)
    assert isinstance(reference, AdapterOff)
    assert not list(reference.parameters())
    assert not reference.state_dict()
    train_a_step(policy, exp)
    assert torch.equal(reference.logp(exp), first)
    assert not torch.allclose(score_actions(policy, exp).logp, first)  # and it is switched on again


def test_adapter_off_needs_an_adapter(backbone: Backbone, exp: Experience) -> None:
    with pytest.raises(RuntimeError, match="adapter_off"):
        AdapterOff(Policy(backbone)).logp(exp)


@pytest.mark.parametrize("make", [lambda: NGram(vocab_size=11, n=2), Adapted])
def test_no_reference_gives_or_gets_a_gradient(make: Callable[[], Backbone], exp: Experience) -> None:
    reference = reference_of(Policy(make()))
    assert not reference.logp(exp).requires_grad
    assert isinstance(reference, nn.Module)
    assert not any(p.requires_grad for p in reference.parameters())


def test_frozen_copy_never_trains(exp: Experience) -> None:
    from feedtune_plugins.backbones.recurrent import Recurrent

    policy = Policy(Recurrent(vocab_size=11, embed_size=8, hidden_size=8, layers=1, dropout=0.5))
    reference = FrozenCopy(policy)
    nn.ModuleList([policy, reference]).train()  # as the Trainer does to all that it hosts
    assert not any(module.training for module in reference.modules())
    assert torch.equal(reference.logp(exp), reference.logp(exp))  # dropout would differ
    assert policy.training
