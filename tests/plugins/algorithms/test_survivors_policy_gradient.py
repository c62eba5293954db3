"""Policy gradient where slips hide: dirt on tokens that are no actions, nothing scored, borders, metrics."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune_plugins.algorithms import (
    CappedWeight,
    Clip,
    KLPenalty,
    MonteCarlo,
    PolicyGradient,
    SupervisedTuning,
)
from feedtune_plugins.backbones.ngram import NGram

T, F = True, False


def two_rows() -> Experience:
    """Row 0 has an observation between its actions, row 1 one action and a pad."""
    return from_rows([[1, 2, 0, 2], [1, 2, 0]], [[F, T, F, T], [F, T, F]], scores=[2.0, 4.0])


def running(exp: Experience, rollouts: int = 1) -> MonteCarlo:
    estimator = MonteCarlo(baseline="running", decay=0.5)
    for _ in range(rollouts):
        estimator(exp, exp.reward)
    return estimator


def test_a_running_mean_counts_scored_rows_alone() -> None:
    exp = two_rows()
    estimator = running(replace(exp, scored=torch.tensor([T, F])))
    assert float(estimator.running) == 2.0  # not (2 + 4) / 1
    assert int(estimator.rollouts) == 1
    assert int(running(exp, rollouts=3).rollouts) == 3


def test_a_running_mean_of_nothing_is_a_number() -> None:
    exp = two_rows()
    silent = replace(exp, scored=torch.tensor([F, F]), reward=torch.zeros_like(exp.reward))
    assert float(running(silent).running) == 0.0


def test_a_prefix_ratio_skips_what_is_no_action() -> None:
    # The policy moved by log 2 on both actions of row 0 (ratios 2 and 4) and of row 1 (2); it is its own
    # reference times e: log pi / ref = 1, so k3 = 1 / e - 1 + 1 = 1 / e. Between them, and before, dirt.
    exp = two_rows()
    logp = torch.where(exp.action, -1.0, 0.0)
    old = torch.where(exp.action, -1.0 - math.log(2), -5.0)
    exp = replace(exp, old_logp=old, ref_logp=torch.where(exp.action, -2.0, -7.0))
    found = KLPenalty(coefficient=1.0, place="loss", estimator="k3_prefix_ratio").in_loss(logp, exp)
    assert found[exp.action].tolist() == pytest.approx([2 / math.e, 4 / math.e, 2 / math.e])


def uniform() -> Policy:
    """Three tokens, each as likely as the others."""
    return Policy(NGram(vocab_size=3, n=2))


def test_a_rollout_measures_its_divergence() -> None:
    # log pi / ref: .5 and 1 in row 0, .25 in row 1: 1.75 nats over two rows
    exp = two_rows()
    reference = torch.tensor([[0, -0.5, 0, -1.0], [0, -0.25, 0, 0]])
    exp = replace(exp, old_logp=torch.zeros_like(exp.reward), ref_logp=reference)
    algorithm = PolicyGradient(advantage=MonteCarlo(baseline="none"), kl=KLPenalty(coefficient=0.5))
    _, metrics = algorithm.prepare(exp, uniform())
    assert metrics["policy/kl"] == pytest.approx(0.875)
    assert metrics["policy/kl_coefficient"] == 0.5


def test_a_loss_takes_nothing_from_tokens_that_are_no_actions() -> None:
    # At ratio 1 the clipped loss is -A: 1, 2 and 3 on the actions, nines on all else. Mean of three: -2.
    exp = two_rows()
    advantage = torch.tensor([[9.0, 1.0, 9.0, 2.0], [9.0, 3.0, 9.0, 9.0]])
    exp = replace(exp, old_logp=torch.where(exp.action, -math.log(3), 0.0)).with_(advantage=advantage)
    loss = PolicyGradient(advantage=MonteCarlo(), surrogate=Clip()).loss(exp, uniform())
    assert float(loss.sum.detach() / loss.denominator) == pytest.approx(-2.0)


def test_a_ratio_on_the_border_is_not_outside() -> None:
    # exp(log 1/2) and exp(log 2) are exact in float64: 1 - .5 and 1 + 1, and the cap itself
    exp = from_rows([[1, 2, 2]], [[F, T, T]], scores=[0.0])
    logp = torch.tensor([[0.0, math.log(0.5), math.log(2.0)]], dtype=torch.float64)
    exp = replace(exp, old_logp=torch.zeros_like(logp)).with_(advantage=torch.ones_like(logp))
    for surrogate in (Clip(low=0.5, high=1.0), CappedWeight(cap=2.0)):
        _, metrics = surrogate(logp, exp)
        assert metrics["policy/clip_fraction"] == 0
        assert metrics["policy/ratio"] == 1.25


def test_imitation_of_nothing_is_a_number() -> None:
    exp = two_rows()
    loss = SupervisedTuning().loss(replace(exp, action=torch.zeros_like(exp.action)), uniform())
    assert loss.metrics["loss/policy"] == 0
