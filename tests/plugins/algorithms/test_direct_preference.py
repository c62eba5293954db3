"""DPO and its kin, by enumeration: the exact expected loss over all ordered pairs, and what minimises it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from compared_pairs import (
    EVERY_LOSS,
    Compared,
    bradley_terry,
    close,
    compared_by,
    logps,
    normalised,
    pair,
    reference_logps,
    set_policy,
    some_distribution,
)
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune_plugins.algorithms import DirectPreference


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_dpos_optimum_is_the_tilted_reference(world: Any, beta: float, temperature: float) -> None:
    """With soft Bradley-Terry labels of rewards r, and any mu that connects all: pi_ref exp(r / beta) / Z."""
    algorithm = DirectPreference(beta=beta, temperature=temperature)
    policy = world.policy(algorithm)
    rewards = world.returns(1.0).numpy()
    weights = compared_by(some_distribution()) * bradley_terry(rewards)
    expected = Compared(world, algorithm, policy, weights)
    assert expected.gradient().abs().max() > 1e-3  # not anywhere
    set_policy(policy, reference_logps(world, policy) + rewards / beta)
    assert expected.gradient().abs().max() < 1e-12
    set_policy(policy, reference_logps(world, policy) + 1.01 * rewards / beta)
    assert expected.gradient().abs().max() > 1e-5


def test_descent_on_dpos_loss_ends_there(world: Any) -> None:
    algorithm = DirectPreference(beta=0.5)
    policy = world.policy(algorithm)
    rewards = world.returns(1.0).numpy()
    Compared(world, algorithm, policy, compared_by(some_distribution()) * bradley_terry(rewards)).minimise()
    close(logps(world, policy), normalised(reference_logps(world, policy) + rewards / 0.5), atol=1e-6)


def test_ipos_optimum_follows_how_often_a_response_wins(world: Any) -> None:
    """pi_ref exp(P(y beats mu) / beta) / Z, for preferences that no rewards explain.

    E[p (d - 1/(2 beta))^2 + (1-p) (d + 1/(2 beta))^2] = E (d - (2p-1)/(2 beta))^2 + const, and with
    d = s(y) - s(y') a least-squares fit whose normal equations give s(y) = P(y beats mu) / beta + const.
    """
    draw = np.random.default_rng(5).uniform(0, 1, (7, 7))
    preferred = np.triu(draw, 1) + np.tril(1 - draw.T, -1) + 0.5 * np.eye(7)
    mu = some_distribution()
    algorithm = DirectPreference(loss="ipo", beta=0.4)
    policy = world.policy(algorithm)
    expected = Compared(world, algorithm, policy, compared_by(mu) * preferred)
    assert expected.gradient().abs().max() > 1e-3
    target = normalised(reference_logps(world, policy) + preferred @ mu / 0.4)
    set_policy(policy, target)
    assert expected.gradient().abs().max() < 1e-12
    set_policy(policy, 0.0 * target)
    expected.minimise()
    close(logps(world, policy), target, atol=1e-7)


def test_cdpos_optimum_matches_the_smoothed_wins(world: Any) -> None:
    """Smoothing by e turns P into e + (1 - 2e) P; the optimum's expected wins are just those.

    Such labels are no Bradley-Terry labels any more, so the fit is found here by Newton's method.
    """
    smoothing, beta = 0.2, 0.5
    rewards, meet = world.returns(1.0).numpy(), compared_by(some_distribution())
    wins = smoothing + (1 - 2 * smoothing) * bradley_terry(rewards)
    lead = np.zeros(7)
    for _ in range(50):
        model = bradley_terry(lead)
        slope = meet * model * (1 - model)
        residual = (meet * (model - wins)).sum(1)
        lead = lead - np.linalg.pinv(np.diag(slope.sum(1)) - slope) @ residual
    assert np.abs((meet * (bradley_terry(lead) - wins)).sum(1)).max() < 1e-14
    algorithm = DirectPreference(loss="cdpo", beta=beta, label_smoothing=smoothing)
    policy = world.policy(algorithm)
    expected = Compared(world, algorithm, policy, meet * bradley_terry(rewards))
    set_policy(policy, reference_logps(world, policy) + lead / beta)
    assert expected.gradient().abs().max() < 1e-12
    set_policy(policy, reference_logps(world, policy) + rewards / beta)  # plain DPO's
    assert expected.gradient().abs().max() > 1e-4


@pytest.mark.parametrize("smoothing", [0.05, 0.3])
def test_cdpo_of_sure_labels_stops_at_the_smoothings_odds(world: Any, smoothing: float) -> None:
    """beta delta = log((1 - e) / e), where plain DPO would never stop."""
    algorithm = DirectPreference(loss="cdpo", beta=0.5, label_smoothing=smoothing)
    policy = world.policy(algorithm)
    weights = np.zeros((7, 7))
    weights[2, 5] = 1.0
    expected = Compared(world, algorithm, policy, weights)
    logits = reference_logps(world, policy)
    logits[2] += math.log((1 - smoothing) / smoothing) / 0.5
    set_policy(policy, logits)
    assert expected.gradient().abs().max() < 1e-12
    logits[2] += 0.1
    set_policy(policy, logits)
    assert expected.gradient().abs().max() > 1e-3


def test_hinges_optimum_is_a_ladder_of_steps_of_one_over_beta(world: Any) -> None:
    """Three responses, compared with each other alone: pi_ref exp(rank / beta).

    A pair that is preferred with p costs p max(0, 1-u) + (1-p) max(0, 1+u): slope -(2p-1) up to a lead
    u = 1, 1-p beyond. At leads 1, 1 and (between first and third) 2, with p = .9, .9, .98: a longer first or
    second step costs .1 + .02, a shorter one .8 - .02. The cost is convex, so this is the only optimum.
    """
    beta, rows = 0.5, [1, 4, 6]
    preferred = np.zeros((7, 7))
    for (a, b), p in {(0, 1): 0.9, (1, 2): 0.9, (0, 2): 0.98}.items():
        preferred[rows[a], rows[b]], preferred[rows[b], rows[a]] = p, 1 - p
    algorithm = DirectPreference(loss="hinge", beta=beta)
    policy = world.policy(algorithm)
    expected = Compared(world, algorithm, policy, preferred)

    def cost(leads: Any) -> float:
        logits = reference_logps(world, policy)
        logits[rows] += np.asarray(leads) / beta
        set_policy(policy, logits)
        return float(expected.loss().detach())

    # .9 0 + .1 2, twice, and .98 0 + .02 3
    best = cost([2.0, 1.0, 0.0])
    assert best == pytest.approx(0.46, abs=1e-12)
    for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        first, second = 0.01 * np.cos(angle), 0.01 * np.sin(angle)
        assert cost([2.0 + first, 1.0, -second]) > best + 1e-4
    assert cost([2.0 + 5, 1.0 + 5, 0.0 + 5]) == pytest.approx(best, abs=1e-12)  # leads are all that counts


def test_online_pairs_weigh_as_they_are_drawn(world: Any) -> None:
    """The mean gradient over all pairs of fresh samples; ties give none, nor does the drawing."""
    rewards = world.returns(1.0)
    rewards[3] = rewards[5]  # two responses are worth the same
    algorithm = DirectPreference(beta=0.5)
    policy = world.policy(algorithm)
    table = policy.backbone.table.weight
    p = world.row_logps(policy).detach().exp()
    found = torch.zeros_like(table)
    for a, b in itertools.product(range(7), repeat=2):
        exp = world.complete(pair(world, a, b, rewards[[a, b]].tolist()), algorithm, policy)
        exp, metrics = algorithm.prepare(exp, policy)
        tied = bool(rewards[a] == rewards[b])
        assert metrics["rollout/dropped_pairs"] == float(tied)
        assert bool(exp.action.any()) != tied
        loss = algorithm.loss(exp, policy)
        found += p[a] * p[b] * torch.autograd.grad(loss.sum / loss.denominator, [table])[0]

    lead = 0.5 * (world.row_logps(policy) - world.row_logps(policy, world.reference_weights).detach())
    better = (rewards[:, None] > rewards[None, :]).double()
    cost = (
        2 * p[:, None] * p[None, :] * better * -torch.nn.functional.logsigmoid(lead[:, None] - lead[None, :])
    )
    (exact,) = torch.autograd.grad(cost.sum(), [table])
    assert exact.abs().max() > 1e-3
    torch.testing.assert_close(found, exact, atol=1e-12, rtol=1e-10)


# By hand


def by_hand(world: Any) -> Experience:
    """Two responses under a uniform policy: log 1/3 a token. Leads over the reference in comments."""
    exp = pair(world, 0, 5)  # [2] and [1, 1]
    # chosen: -log 3 + 2, its one token being the end; rejected: -2 log 3 + 2. The lead is log 3.
    return replace(exp, ref_logp=torch.tensor([[0, -2.0, 0], [0, -1.25, -0.75]], dtype=torch.float64))


LOG3 = math.log(3)
GOLDENS = {
    "sigmoid": ({"beta": 1.0}, math.log(4 / 3)),  # sigmoid(log 3) = 3/4
    "cdpo": ({"beta": 1.0}, 0.9 * math.log(4 / 3) + 0.1 * math.log(4)),  # smoothed by .1 unless told
    "hinge": ({"beta": 0.5}, 1 - 0.5 * LOG3),
    "ipo": ({"beta": 0.25}, (LOG3 - 2) ** 2),  # 1 / (2 beta) = 2
}


@pytest.mark.parametrize("kind", EVERY_LOSS)
def test_a_pair_by_hand(world: Any, kind: Any) -> None:
    options, expected = GOLDENS[kind]
    algorithm = DirectPreference(loss=kind, **options)
    policy = world.policy(algorithm)
    policy.backbone.table.weight.data.zero_()
    exp, metrics = algorithm.prepare(by_hand(world), policy)
    loss = algorithm.loss(exp, policy)
    assert metrics == {"rollout/dropped_pairs": 0.0}
    assert float(loss.denominator) == 1.0  # pair
    assert loss.sum.item() == pytest.approx(expected, rel=1e-12)
    assert float(loss.metrics["loss/policy"]) == pytest.approx(expected, rel=1e-12)
    assert float(loss.metrics["policy/margin"]) == pytest.approx(options["beta"] * LOG3, rel=1e-12)
    assert float(loss.metrics["policy/preference_accuracy"]) == 1.0


def test_a_wrong_order_is_no_success(world: Any) -> None:
    algorithm = DirectPreference(beta=1.0)
    policy = world.policy(algorithm)
    policy.backbone.table.weight.data.zero_()
    exp = by_hand(world)
    exp = replace(exp, reward=exp.reward.flip(0) * 0 + torch.tensor([[0, 0, 0], [0, 0, 1.0]]))
    metrics = algorithm.loss(exp, policy).metrics
    assert float(metrics["policy/preference_accuracy"]) == 0.0
    assert float(metrics["policy/margin"]) == pytest.approx(-LOG3, rel=1e-12)
    assert float(metrics["loss/policy"]) == pytest.approx(math.log(4), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"loss": "hing"},
            "algorithm.loss: expected one of sigmoid, cdpo, hinge, ipo, got 'hing'. Did you mean 'hinge'?",
        ),
        ({"beta": 0.0}, "algorithm.beta: expected a number above 0, got 0.0"),
        ({"temperature": -1.0}, "algorithm.temperature: expected a number above 0, got -1.0"),
        ({"label_smoothing": 0.5}, "algorithm.label_smoothing: expected a number in [0, 0.5), got 0.5"),
        (
            {"loss": "cdpo", "label_smoothing": 0.0},
            "algorithm.label_smoothing: cdpo with 0 is sigmoid; give more, or choose that",
        ),
    ],
)
def test_wrong_values_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        DirectPreference(**options)
    assert str(caught.value) == message
