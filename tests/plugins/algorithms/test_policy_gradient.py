"""PPO's loss and gradient of two rows by hand; rows that must count for nothing; odd rows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune_plugins.algorithms import (
    GAE,
    Adaptive,
    CappedWeight,
    Clip,
    KLPenalty,
    MonteCarlo,
    Overlong,
    PolicyGradient,
    SupervisedTuning,
    ValueLoss,
)
from feedtune_plugins.backbones.ngram import NGram

T, F = True, False
NAN = math.nan

# A bigram policy over three tokens; row i + 1 of the table is what follows token i.
P_AFTER_0, P_AFTER_1 = [0.5, 0.25, 0.25], [0.2, 0.6, 0.2]


def two_rows() -> tuple[PolicyGradient, Policy, Experience]:
    """Row A says 0, then 1 after the prompt 0; row B says 1 after the prompt 1, and is padded.

    Ratios 1.5, .9 and .5; advantages 1, -2 and -1; values .5, .5 and 1, which were .2, .5 and .1 in the
    rollout and are to become 1, 0 and 2.
    """
    algorithm = PolicyGradient(
        advantage=GAE(), surrogate=Clip(low=0.2, high=0.2), value=ValueLoss(weight=0.5, clip=0.2)
    )
    policy = algorithm.build_policy(lambda: NGram(vocab_size=3, n=2).double())
    policy.backbone.table.weight.data[1] = torch.tensor(P_AFTER_0).log()  # type: ignore[union-attr, index]
    policy.backbone.table.weight.data[2] = torch.tensor(P_AFTER_1).log()  # type: ignore[union-attr, index]
    policy.heads["value"].weight.data[1:3, 0] = torch.tensor([0.5, 1.0])  # type: ignore[union-attr, index]
    exp = from_rows([[0, 0, 1], [1, 1]], [[F, T, T], [F, T]])
    old = torch.tensor([[1, 0.5 / 1.5, 0.25 / 0.9], [1, 0.6 / 0.5, 1]], dtype=torch.float64).log()
    return (
        algorithm,
        policy,
        replace(exp, old_logp=old).with_(
            advantage=torch.tensor([[0.0, 1, -2], [0, -1, 0]], dtype=torch.float64),
            returns=torch.tensor([[0.0, 1, 0], [0, 2, 0]], dtype=torch.float64),
            value=torch.tensor([[0, 0.2, 0.5], [0, 0.1, 0]], dtype=torch.float64),
        ),
    )


def test_ppo_by_hand() -> None:
    # Policy, -min(ratio A, clipped A):
    #   A0: -min(1.5, 1.2) = -1.2, at the clip: no gradient
    #   A1: -min(-1.8, -1.8) = 1.8, inside: d / d log pi = 1.8
    #   B0: -min(-.5, -.8) = .8, at the clip: no gradient                          sum  1.4
    # Value, .5 max((V - G)^2, (V_clipped - G)^2):
    #   A0: V_clipped = .4: max(.25, .36) / 2 = .18, at the clip: no gradient
    #   A1: V_clipped = .5: max(.25, .25) / 2 = .125, d / dV = .5
    #   B0: V_clipped = .3: max(1, 2.89) / 2 = 1.445, at the clip: no gradient     sum 1.75, half of it .875
    algorithm, policy, exp = two_rows()
    loss = algorithm.loss(exp, policy)
    assert loss.sum.item() == pytest.approx(1.4 + 0.875)
    assert float(loss.denominator) == 3  # action tokens
    (loss.sum / loss.denominator).backward()  # type: ignore[no-untyped-call]
    # d log p(1 after 0) / d logits = (0, 1, 0) - (.5, .25, .25); times 1.8 / 3
    table, values = policy.backbone.table.weight.grad, policy.heads["value"].weight.grad  # type: ignore[union-attr]
    expected = torch.zeros(4, 3, dtype=torch.float64)
    expected[1] = torch.tensor([-0.3, 0.45, -0.15])
    torch.testing.assert_close(table, expected, atol=1e-7, rtol=0)
    # d / dV(after 0) = .5 (weight) * .5 / 3
    torch.testing.assert_close(
        values, torch.tensor([[0], [0.25 / 3], [0], [0]], dtype=torch.float64), atol=1e-7, rtol=0
    )
    # Metrics are means over the three action tokens.
    assert {name: float(value) for name, value in loss.metrics.items()} == pytest.approx(
        {
            "loss/policy": 1.4 / 3,
            "loss/value": 1.75 / 3,
            "policy/ratio": (1.5 + 0.9 + 0.5) / 3,
            "policy/clip_fraction": 2 / 3,
            # (1.5 log 2) twice, and -(.4 log .2 + .6 log .6)
            "policy/entropy": (3 * math.log(2) - 0.4 * math.log(0.2) - 0.6 * math.log(0.6)) / 3,
        }
    )


def test_the_other_aggregations_divide_by_rows() -> None:
    algorithm, policy, exp = two_rows()
    total = algorithm.loss(exp, policy).sum.item()
    parts: dict[str, Any] = {"surrogate": Clip(), "value": ValueLoss(clip=0.2)}  # as there
    by_rows = PolicyGradient(advantage=GAE(), **parts, aggregation="row_sum")
    assert by_rows.loss(exp, policy).sum.item() == pytest.approx(total)
    assert float(by_rows.loss(exp, policy).denominator) == 2
    fixed = PolicyGradient(advantage=GAE(), **parts, aggregation="row_sum", length=8)
    assert fixed.loss(exp, policy).sum.item() == pytest.approx(total / 8)
    # Row A has two tokens, row B one: half of A's sum and all of B's.
    alone = [by_rows.loss(exp[i : i + 1].trim(), policy).sum.item() for i in range(2)]
    means = PolicyGradient(advantage=GAE(), **parts, aggregation="row_mean")
    assert means.loss(exp, policy).sum.item() == pytest.approx(alone[0] / 2 + alone[1])
    assert float(means.loss(exp, policy).denominator) == 2


def test_minibatches_add_up_to_the_whole() -> None:
    """With the step's denominators attached, accumulating over micro-batches changes nothing."""
    for aggregation in ("token_mean", "row_sum", "row_mean"):
        algorithm, policy, exp = two_rows()
        algorithm.aggregation = aggregation
        whole = algorithm.loss(exp, policy)
        parts = [replace(exp[i : i + 1].trim(), step_tokens=3.0, step_rows=2.0) for i in range(2)]
        losses = [algorithm.loss(part, policy) for part in parts]
        total = sum(part.sum / part.denominator for part in losses)
        torch.testing.assert_close(total, whole.sum / whole.denominator)


def test_bonus_and_penalty_by_hand() -> None:
    # With entropy .1 and k3 of weight .2 against a reference of log pi - log 2 everywhere:
    # k3 = 1/2 - 1 + log 2 a token. No advantage, so nothing else is left.
    _, policy, exp = two_rows()
    algorithm = PolicyGradient(
        advantage=MonteCarlo(),
        kl=KLPenalty(coefficient=0.2, place="loss", estimator="k3"),
        entropy=0.1,
    )
    logp = torch.tensor([[0, 0.5, 0.25], [0, 0.6, 0]], dtype=torch.float64).log().nan_to_num(neginf=0.0)
    exp = replace(exp, ref_logp=logp - math.log(2)).with_(advantage=torch.zeros(2, 3))
    loss = algorithm.loss(exp, policy)
    entropies = 3 * math.log(2) - 0.4 * math.log(0.2) - 0.6 * math.log(0.6)
    assert loss.sum.item() == pytest.approx(3 * 0.2 * (math.log(2) - 0.5) - 0.1 * entropies)


ALGORITHMS: dict[str, dict[str, Any]] = {
    "none": {"advantage": lambda: MonteCarlo(baseline="none"), "aggregation": "row_sum"},
    "mean": {"advantage": lambda: MonteCarlo(baseline="mean"), "aggregation": "row_sum"},
    "leave_one_out": {"advantage": lambda: MonteCarlo(baseline="leave_one_out")},
    "group": {"advantage": lambda: MonteCarlo(baseline="leave_one_out", scope="group")},
    "running": {"advantage": lambda: MonteCarlo(baseline="running"), "aggregation": "row_sum"},
    "value": {"advantage": lambda: MonteCarlo(baseline="value", gamma=0.9)},
    "ppo": {
        "advantage": lambda: GAE(gamma=0.99, lam=0.9, whiten=True),
        "surrogate": lambda: Clip(dual=3.0),
        "kl": lambda: KLPenalty(coefficient=0.1, adaptive=Adaptive(target=0.5, horizon=10)),
        "entropy": 0.01,
    },
    "own critic": {"advantage": lambda: GAE(whiten=False), "value": lambda: ValueLoss(critic="own")},
    "grpo": {
        "advantage": lambda: MonteCarlo(credit="row", baseline="mean", scope="group", scale="rows"),
        "surrogate": lambda: Clip(level="row", low=0.01, high=0.01),
        "aggregation": "row_mean",
    },
    "cispo": {
        "advantage": lambda: MonteCarlo(credit="row", baseline="greedy", gamma=0.9),
        "surrogate": lambda: CappedWeight(cap=1.01),
        "overlong": lambda: Overlong(limit=2, margin=1),
    },
    "whole rollout": {
        "advantage": lambda: MonteCarlo(credit="row", baseline="none", scale="rows"),
        "kl": lambda: KLPenalty(coefficient=0.1, place="loss", estimator="k2_row"),
        "aggregation": "row_sum",
        "length": 3.0,
    },
    "reinforce_pp": {
        "advantage": lambda: MonteCarlo(baseline="none", scale="tokens"),
        "surrogate": lambda: Clip(),
        "kl": lambda: KLPenalty(coefficient=0.1, place="loss", estimator="k3_prefix_ratio"),
    },
    "loss kl": {
        "advantage": lambda: MonteCarlo(baseline="mean", scope="group"),
        "surrogate": lambda: Clip(high=0.3),
        "kl": lambda: KLPenalty(coefficient=0.1, place="loss", estimator="k3"),
    },
}


def build(name: str) -> PolicyGradient:
    parts = {key: part() if callable(part) else part for key, part in ALGORITHMS[name].items()}
    return PolicyGradient(**parts)


def outcome(world: Any, algorithm: Any, exp: Experience) -> dict[str, torch.Tensor]:
    """Two rollouts: everything the algorithm computes in the second."""
    policy = world.policy(algorithm)
    found: dict[str, torch.Tensor] = {}
    for _ in range(2):
        policy.zero_grad()
        prepared, metrics = algorithm.prepare(world.complete(exp, algorithm, policy), policy)
        with torch.no_grad():
            policy.backbone.table.weight += 0.3  # the policy moves on, so that ratios are not all 1
            policy.backbone.table.weight[:, 0] -= 0.5
        loss = algorithm.loss(prepared, policy)
        (loss.sum / loss.denominator).backward()
        found = {name: torch.as_tensor(value) for name, value in {**metrics, **loss.metrics}.items()}
        found |= {f"grad.{name}": p.grad for name, p in policy.named_parameters() if p.grad is not None}
        found |= {f"state.{name}": value.clone() for name, value in algorithm.state_dict().items()}
        found |= {"sum": loss.sum.detach(), "denominator": torch.as_tensor(loss.denominator)}
    return found


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_a_row_that_is_not_scored_is_as_good_as_absent(world: Any, name: str) -> None:
    """Loss, gradients, denominators, metrics and every running statistic."""
    exp = replace(world.experience([3, 6, 0, 5, 1]), group=torch.tensor([0, 0, 0, 1, 1]))
    nan_row = 1
    scored = torch.arange(5) != nan_row
    silent = replace(
        exp,
        scored=scored,
        action=exp.action & scored[:, None],
        reward=torch.where(scored[:, None], exp.reward, 0),
    )
    with_it = outcome(world, build(name), silent)
    without = outcome(world, build(name), exp[scored.nonzero().squeeze(-1)])
    assert with_it.keys() == without.keys()
    for key, value in without.items():
        torch.testing.assert_close(with_it[key].double(), value.double(), msg=lambda m, k=key: f"{k}: {m}")
    assert without["grad.backbone.table.weight"].abs().max() > 1e-3


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_pads_and_their_content_change_nothing(world: Any, name: str) -> None:
    exp = world.experience([3, 0])
    wide = exp.padded(0, 6 - exp.tokens.shape[1])
    dirty = replace(wide, tokens=torch.where(wide.mask, wide.tokens, 2))  # pad == end of text
    one, other = outcome(world, build(name), exp), outcome(world, build(name), dirty)
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_a_batch_without_actions_has_no_loss_and_no_gradient(world: Any, name: str) -> None:
    exp = world.experience([3, 0])
    exp = replace(exp, action=torch.zeros_like(exp.action))
    found = outcome(world, build(name), exp)
    assert found["sum"] == 0
    assert not any(value.any() for key, value in found.items() if key.startswith("grad"))
    assert all(value.isfinite().all() for key, value in found.items() if key.startswith("state"))


def test_supervised_tuning_without_anything_to_learn(world: Any) -> None:
    algorithm = SupervisedTuning()
    policy = world.policy(algorithm)
    exp = world.experience([3])
    loss = algorithm.loss(replace(exp, action=torch.zeros_like(exp.action)), policy)
    (loss.sum / loss.denominator).backward()
    assert loss.sum == 0
    assert not policy.backbone.table.weight.grad.any()


def test_needs_only_what_is_used() -> None:
    def needs(**parts: Any) -> set[str]:
        return set(PolicyGradient(**{"advantage": MonteCarlo(), **parts}).needs())

    assert needs() == set()
    assert needs(advantage=MonteCarlo(baseline="value")) == {"values"}
    assert needs(advantage=GAE()) == {"values"}
    assert needs(surrogate=Clip()) == {"old_logp"}
    assert needs(kl=KLPenalty()) == {"old_logp", "reference"}
    assert needs(kl=KLPenalty(coefficient=0.0)) == set()  # costs no reference pass
    assert needs(advantage=MonteCarlo(baseline="greedy")) == {"greedy"}
    assert needs(advantage=MonteCarlo(scope="group")) == {"groups"}


def test_a_value_head_only_where_values_are_used(world: Any) -> None:
    assert set(world.policy(build("ppo")).heads) == {"value"}
    assert not world.policy(build("ppo")).towers
    own = world.policy(build("own critic"))
    assert set(own.towers) == {"value"}
    assert set(own.parameter_groups()) == {"backbone", "value"}
    assert len(own.parameter_groups()["value"]) == 2  # the critic's table and the head
    assert not world.policy(build("mean")).heads
    assert world.policy(PolicyGradient(advantage=GAE(), temperature=0.3)).temperature == 0.3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PolicyGradient(advantage=GAE(), aggregation="token_sum"),  # type: ignore[arg-type]
            "algorithm.aggregation: expected one of row_sum, row_mean, token_mean, got 'token_sum'. "
            "Did you mean 'token_mean'?",
        ),
        (
            lambda: PolicyGradient(advantage=GAE(), temperature=0.0),
            "algorithm.temperature: expected a number above 0, got 0.0",
        ),
        (
            lambda: PolicyGradient(advantage=GAE(), entropy=-1.0),
            "algorithm.entropy: expected at least 0, got -1.0",
        ),
        (lambda: Clip(low=-0.1), "algorithm.surrogate.low: expected a number in [0, 1], got -0.1"),
        (lambda: Clip(high=-0.1), "algorithm.surrogate.high: expected at least 0, got -0.1"),
        (lambda: Clip(dual=1.0), "algorithm.surrogate.dual: expected a number above 1, got 1.0"),
        (lambda: ValueLoss(weight=-1.0), "algorithm.value.weight: expected at least 0, got -1.0"),
        (
            lambda: PolicyGradient(advantage=MonteCarlo(), value=ValueLoss()),
            "algorithm.value: the advantage reads no values; leave it null",
        ),
        (lambda: CappedWeight(cap=0.0), "algorithm.surrogate.cap: expected a number above 0, got 0.0"),
        (
            lambda: PolicyGradient(advantage=GAE(), length=8),
            "algorithm.length: only algorithm.aggregation=row_sum has a use for it, not token_mean",
        ),
        (
            lambda: PolicyGradient(
                advantage=GAE(), kl=KLPenalty(place="loss", estimator="k2_row"), aggregation="row_mean"
            ),
            "algorithm.kl.estimator=k2_row: only algorithm.aggregation=row_sum has a use for it, "
            "not row_mean",
        ),
        (lambda: ValueLoss(clip=0.0), "algorithm.value.clip: expected a number above 0, got 0.0"),
    ],
)
def test_wrong_values_are_refused_by_name(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == message
