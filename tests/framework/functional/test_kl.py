"""The three estimators: values by hand, what they estimate by summing over the whole vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from feedtune.functional import adapt_coefficient, k1, k2, k3


def test_goldens() -> None:
    # log p/q = log 0.5 - log 0.25 = log 2 = 0.6931: k1 = 0.6931, k2 = 0.6931^2 / 2 = 0.2402,
    # k3 = q/p - 1 + log p/q = 0.5 - 1 + 0.6931 = 0.1931.
    p, q = torch.tensor(0.5).log(), torch.tensor(0.25).log()
    assert k1(p, q).item() == pytest.approx(math.log(2))
    assert k2(p, q).item() == pytest.approx(math.log(2) ** 2 / 2)
    assert k3(p, q).item() == pytest.approx(math.log(2) - 0.5)
    # and the other way round: k1 = -0.6931, k2 the same, k3 = 2 - 1 - 0.6931 = 0.3069
    assert k1(q, p).item() == pytest.approx(-math.log(2))
    assert k2(q, p).item() == pytest.approx(math.log(2) ** 2 / 2)
    assert k3(q, p).item() == pytest.approx(1 - math.log(2))


@pytest.fixture
def logits() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    p, q = torch.randn(2, 5, generator=generator, dtype=torch.float64).unbind()
    return p.requires_grad_(), q


def test_k1_and_k3_are_unbiased_estimates_of_kl(logits: tuple[Tensor, Tensor]) -> None:
    p, q = (x.detach().log_softmax(-1) for x in logits)
    kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=p), torch.distributions.Categorical(logits=q)
    )
    torch.testing.assert_close((p.exp() * k1(p, q)).sum(), kl)
    torch.testing.assert_close((p.exp() * k3(p, q)).sum(), kl)
    assert bool((k3(p, q) >= 0).all())


def test_gradients_in_the_loss(logits: tuple[Tensor, Tensor]) -> None:
    """Tokens are drawn from p, and only the estimate is differentiated."""
    free, q = logits[0], logits[1].log_softmax(-1)

    def gradient(scalar: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.autograd.grad(scalar(free.log_softmax(-1)), free)[0]

    drawn = free.detach().softmax(-1)
    forward = gradient(lambda p: (p.exp() * (p - q)).sum())  # of KL(p, q)
    backward = gradient(lambda p: (q.exp() * (q - p)).sum())  # of KL(q, p)
    assert (forward - backward).abs().max() > 0.01
    for estimator, exact in ((k1, torch.zeros_like(forward)), (k2, forward), (k3, backward)):
        found = gradient(lambda p, estimator=estimator: (drawn * estimator(p, q)).sum())  # type: ignore[misc]
        torch.testing.assert_close(found, exact, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.1),  # on target
        (6.6, 0.1 * 1.01),  # a tenth above: 1 + 0.1 * 100 / 1000
        (12.0, 0.1 * 1.02),  # far above: clipped to a fifth
        (0.0, 0.1 * 0.98),  # far below: clipped likewise
        (-3.0, 0.1 * 0.98),  # an estimate can be negative
    ],
)
def test_adapt_coefficient(kl: float, expected: float) -> None:
    found = adapt_coefficient(0.1, kl=kl, target=6.0, rows=100, horizon=1000)
    assert found == pytest.approx(expected)
