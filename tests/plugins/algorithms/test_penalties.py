"""The KL penalty: where it goes, how its coefficient moves, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune_plugins.algorithms import Adaptive, KLPenalty

T, F = True, False


@pytest.fixture
def exp() -> Experience:
    """log pi - log pi_ref: 1 and .5 in row 0 (an observation between), -.25 in row 1, no action in row 2."""
    exp = from_rows([[1, 2, 9, 3], [1, 2], [1]], [[F, T, F, T], [F, T], [F]], scores=[2.0, 1.0, 5.0])
    old = torch.tensor([[9.0, -1, 9, -2], [9, -1, 9, 9], [9] * 4])  # nines where nothing may be read
    reference = torch.tensor([[-9.0, -2, -9, -2.5], [-9, -0.75, -9, -9], [-9] * 4])
    return replace(exp, old_logp=old, ref_logp=reference)


def test_k1_is_taken_off_the_reward_of_each_action_token(exp: Experience) -> None:
    found = KLPenalty(coefficient=0.5).shape(exp)
    # row 0: -.5 * 1 on the first, 2 - .5 * .5 on the last; row 1: 1 + .5 * .25; row 2 keeps its score
    assert found.tolist() == [[0, -0.5, 0, 1.75], [0, 1.125, 0, 0], [5, 0, 0, 0]]


def test_in_the_loss_it_leaves_the_reward_alone(exp: Experience) -> None:
    penalty = KLPenalty(coefficient=0.5, place="loss", estimator="k2")
    assert torch.equal(penalty.shape(exp), exp.reward)
    assert exp.old_logp is not None
    # k2: 1/2, 1/8 and 1/32, times .5
    assert penalty.in_loss(exp.old_logp, exp).tolist() == [
        [0, 0.25, 0, 0.0625],
        [0, 0.015625, 0, 0],
        [0, 0, 0, 0],
    ]
    in_reward = KLPenalty(coefficient=0.5)
    assert not in_reward.in_loss(exp.old_logp, exp).any()


def test_the_policy_that_acted_is_the_old_one_or_the_sampler(exp: Experience) -> None:
    sampled = replace(exp, old_logp=None, sampler_logp=exp.old_logp)
    penalty = KLPenalty(coefficient=0.5)
    assert torch.equal(penalty.shape(sampled), penalty.shape(exp))
    with pytest.raises(RuntimeError, match="policy that acted"):
        penalty.shape(replace(exp, old_logp=None))
    with pytest.raises(RuntimeError, match="reference's"):
        penalty.shape(replace(exp, ref_logp=None))


def test_reports_nats_a_row_and_the_coefficient_that_was_used(exp: Experience) -> None:
    # (1 + .5) and -.25 over the two rows with action tokens: .625
    penalty = KLPenalty(coefficient=0.5)
    assert penalty.observe(exp) == {"policy/kl": 0.625, "policy/kl_coefficient": 0.5}
    assert penalty.beta.item() == 0.5


def test_the_adaptive_coefficient_moves_after_each_rollout(exp: Experience) -> None:
    # KL .625 against .6: error .041667; 2 rows of 10: beta * (1 + .041667 / 5) = .504166...
    penalty = KLPenalty(coefficient=0.5, adaptive=Adaptive(target=0.6, horizon=10.0))
    first = penalty.shape(exp)
    assert penalty.observe(exp)["policy/kl_coefficient"] == 0.5  # the one that shaped this rollout
    assert penalty.beta.item() == pytest.approx(0.5 * (1 + (0.625 / 0.6 - 1) * 2 / 10))
    assert penalty.shape(exp)[0, 1] < first[0, 1]
    # Far off target the step is a fifth: beta grows by .2 * 2 / 10.
    strict = KLPenalty(coefficient=0.5, adaptive=Adaptive(target=0.01, horizon=10.0))
    strict.observe(exp)
    assert strict.beta.item() == pytest.approx(0.5 * 1.04)


def test_the_coefficient_travels_in_checkpoints(exp: Experience) -> None:
    penalty = KLPenalty(coefficient=0.5, adaptive=Adaptive(target=0.1, horizon=10.0))
    penalty.observe(exp)
    restored = KLPenalty(coefficient=0.5, adaptive=Adaptive(target=0.1, horizon=10.0))
    restored.load_state_dict(penalty.state_dict())
    assert restored.observe(exp) == penalty.observe(exp)


def test_a_coefficient_of_zero_is_no_penalty(exp: Experience) -> None:
    penalty = KLPenalty(coefficient=0.0)
    bare = replace(exp, old_logp=None, ref_logp=None)
    assert not penalty.active
    assert torch.equal(penalty.shape(bare), bare.reward)
    assert penalty.observe(bare) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"estimator": "k3"},
            "algorithm.kl.estimator: k3 in the reward is not the gradient of a KL divergence; "
            "with algorithm.kl.place=reward use k1",
        ),
        (
            {"place": "loss"},
            "algorithm.kl.estimator: k1 in the loss is not the gradient of a KL divergence; "
            "with algorithm.kl.place=loss use k2 or k3",
        ),
        ({"coefficient": -1.0}, "algorithm.kl.coefficient: expected at least 0, got -1.0"),
        (
            {"place": "los"},
            "algorithm.kl.place: expected one of reward, loss, got 'los'. Did you mean 'loss'?",
        ),
        ({"estimator": "k4"}, "algorithm.kl.estimator: expected one of k1, k2, k3, got 'k4'."),
        ({"adaptive": Adaptive(target=0.0)}, "algorithm.kl.adaptive: target and horizon must be above 0"),
    ],
)
def test_what_is_no_divergence_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        KLPenalty(**options)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)
