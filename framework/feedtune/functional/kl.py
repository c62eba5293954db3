"""Estimators of the KL divergence between policy p and reference q from samples of p.

With r = log p/q of a sampled token (or row): k1 = r, k2 = r^2 / 2, k3 = exp(-r) - 1 + r
(Schulman, "Approximating KL divergence", 2020). What each estimates depends on where it stands:

- in the reward (detached), k1 summed to go gives the true gradient of the row's KL(p, q);
- in the loss, k2 per token gives the gradient of the token KL(p, q) with visited states frozen, k3 that
  of KL(q, p), and k1 gives none at all;
- as a number to report, k1 is unbiased and noisy, k3 unbiased and never negative.
"""

from __future__ import annotations

from torch import Tensor


def k1(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """log p/q, any shape.

    >>> import torch
    >>> k1(torch.tensor(-1.0), torch.tensor(-3.0))
    tensor(2.)
    """
    return logp - ref_logp


def k2(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """(log p/q)^2 / 2, any shape.

    >>> import torch
    >>> k2(torch.tensor(-1.0), torch.tensor(-3.0))
    tensor(2.)
    """
    return (logp - ref_logp).square() / 2


def k3(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """q/p - 1 - log q/p, any shape; never negative.

    >>> import torch
    >>> k3(torch.tensor(0.0), torch.tensor(0.0))
    tensor(0.)
    """
    log_ratio = logp - ref_logp
    return (-log_ratio).exp() - 1 + log_ratio


def adapt_coefficient(coefficient: float, kl: float, target: float, rows: int, horizon: float) -> float:
    """The next KL coefficient (Ziegler et al. 2019, arXiv:1909.08593, section 2.2).

    beta (1 + clip(KL / target - 1, -0.2, 0.2) rows / horizon), with KL in nats a row.

    >>> adapt_coefficient(0.1, kl=12.0, target=6.0, rows=100, horizon=1000)
    0.10200000000000001
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * rows / horizon)
