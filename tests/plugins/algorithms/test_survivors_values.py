"""Values and preferences where slips hide: metrics, pairs with half an answer, what is frozen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from feedtune.contracts import State
from feedtune.experience import Experience, from_rows
from feedtune_plugins.algorithms import (
    ILQL,
    DirectPreference,
    PriorPolicy,
    RewardModelling,
    TargetNetwork,
)
from feedtune_plugins.backbones.ngram import NGram

T, F = True, False


def bigrams() -> NGram:
    """Three tokens; the state after token t is bucket t + 1."""
    return NGram(vocab_size=3, n=2).double()


def test_what_ilql_reports() -> None:
    # One row 1 -> 2 -> 0. States: after 1 (bucket 2), after 2 (bucket 3).
    # min Q of the tokens: min(5, 4) = 4 and min(2, 6) = 2, mean 3; V 1 and 3, so Q - V is 3 and -1, mean 1.
    algorithm = ILQL(target=TargetNetwork())
    policy = algorithm.build_policy(bigrams)
    tables = {name: policy.heads[name].weight.data for name in ("q1", "q2", "value")}
    tables["q1"][2, 2], tables["q2"][2, 2] = 5.0, 4.0
    tables["q1"][3, 0], tables["q2"][3, 0] = 2.0, 6.0
    tables["value"][2], tables["value"][3] = 1.0, 3.0
    algorithm.setup(policy)
    exp = from_rows([[1, 2, 0]], [[F, T, T]], scores=[0.0])
    metrics = algorithm.loss(exp, policy).metrics
    assert float(metrics["policy/q"]) == pytest.approx(3.0)
    assert float(metrics["policy/advantage"]) == pytest.approx(1.0)
    nothing = algorithm.loss(replace(exp, action=torch.zeros_like(exp.action)), policy).metrics
    assert set(map(float, nothing.values())) == {0.0}


def four_pairs() -> Experience:
    """Four prompts with two rows each, the first one better."""
    rows, actions = [[1, 2, 0], [1, 0, 2]] * 4, [[F, T, T]] * 8
    return from_rows(rows, actions, scores=[1.0, 0.0] * 4, group=[0, 0, 1, 1, 2, 2, 3, 3])


@pytest.mark.parametrize("algorithm", [DirectPreference(), RewardModelling()])
def test_half_a_pair_says_nothing(algorithm: DirectPreference | RewardModelling) -> None:
    """Without a score: the second pair's worse row, the third's better one; the last one's worse is empty."""
    exp = four_pairs()
    scored = torch.tensor([T, T, T, F, F, T, T, T])
    answered = torch.tensor([T, T, T, T, T, T, T, F])
    exp = replace(exp, scored=scored, action=exp.action & answered[:, None])
    policy = algorithm.build_policy(bigrams)
    ready, metrics = algorithm.prepare(exp, policy)
    assert ready.action.any(-1).tolist() == [T, T] + [F] * 6
    assert metrics["rollout/dropped_pairs"] == 0.75
    none, _ = algorithm.prepare(exp[:0], policy)
    assert len(none) == 0


def test_a_lead_is_measured_on_actions_alone() -> None:
    # A policy like its reference leads by 0 on the answers; on the prompt the reference is dirt.
    # log 2 for each of four pairs; a lead of 0 is no success.
    algorithm = DirectPreference()
    exp = four_pairs()
    dirt = torch.arange(exp.tokens.numel(), dtype=torch.float64).view(exp.tokens.shape)
    exp = replace(exp, ref_logp=torch.where(exp.action, -math.log(3), dirt))
    loss = algorithm.loss(exp, algorithm.build_policy(bigrams))
    assert float(loss.sum.detach() / loss.denominator) == pytest.approx(math.log(2))
    assert float(loss.metrics["loss/policy"]) == pytest.approx(math.log(2))
    assert float(loss.metrics["policy/preference_accuracy"]) == 0.0


def test_the_mean_over_pairs_of_a_reward_model() -> None:
    # The head says 2 after token 0 (bucket 1) and 0 after token 2: every pair leads by 2, log(1 + e^-2)
    algorithm = RewardModelling()
    policy = algorithm.build_policy(bigrams)
    policy.heads["reward"].weight.data[1] = 2.0  # type: ignore[operator]
    loss = algorithm.loss(four_pairs(), policy)
    each = math.log(1 + math.exp(-2))
    assert float(loss.sum.detach() / loss.denominator) == pytest.approx(each)
    found = {name: float(value) for name, value in loss.metrics.items()}
    expected = {"loss/reward": each, "reward/preference_accuracy": 1.0, "reward/margin": 2.0}
    assert found == pytest.approx(expected)


class Forgetful(NGram):
    """A backbone that keeps no state."""

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        hidden, _ = super().forward(tokens, mask, state)
        return hidden, None


def test_a_prior_is_frozen_and_needs_a_backbone_that_remembers() -> None:
    policy = PriorPolicy(Forgetful(vocab_size=3, n=2), towers={"prior": NGram(vocab_size=3, n=2)})
    assert not policy.prior.training
    assert not any(weight.requires_grad for weight in policy.prior.parameters())
    _, state = policy(torch.tensor([[1, 2]]), torch.tensor([[T, T]]))
    assert state is None  # half a state is none: whoever reads on must read from the beginning


def test_a_target_network_stays_a_frozen_copy() -> None:
    policy = RewardModelling().build_policy(bigrams).train()
    target = TargetNetwork(polyak=0.5, every=2)
    target.start(policy)
    assert not target.backbone.training
    assert not target.heads.training
    for steps in (1, 2, 3):
        target.follow(policy)
        assert int(target.steps) == steps
    assert not any(weight.requires_grad for weight in target.parameters())
