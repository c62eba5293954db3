"""The KL penalty: where it goes, how its coefficient moves, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune_plugins.algorithms import Adaptive, KLPenalty, Overlong

T, F = True, False


@pytest.fixture
def exp() -> Experience:
    """log pi - log pi_ref: 1 and .5 in row 0 (an observation between), -.25 in row 1, no action in row 2."""
    exp = from_rows([[1, 2, 9, 3], [1, 2], [1]], [[F, T, F, T], [F, T], [F]], scores=[2.0, 1.0, 5.0])
    old = torch.tensor([[9.0, -1, 9, -2], [9, -1, 9, 9], [9] * 4])  # nines where nothing may be read
    reference = torch.tensor([[-9.0, -2, -9, -2.5], [-9, -0.75, -9, -9], [-9] * 4])
    return replace(exp, old_logp=old, ref_logp=reference)


def test_k1_is_taken_off_the_reward_of_each_action_token(exp: Experience) -> None:
    found = exp.reward - KLPenalty(coefficient=0.5).in_reward(exp)
    # row 0: -.5 * 1 on the first, 2 - .5 * .5 on the last; row 1: 1 + .5 * .25; row 2 keeps its score
    assert found.tolist() == [[0, -0.5, 0, 1.75], [0, 1.125, 0, 0], [5, 0, 0, 0]]


def test_in_the_loss_it_leaves_the_reward_alone(exp: Experience) -> None:
    penalty = KLPenalty(coefficient=0.5, place="loss", estimator="k2")
    assert not penalty.in_reward(exp).any()
    assert exp.old_logp is not None
    # k2: 1/2, 1/8 and 1/32, times .5
    assert penalty.in_loss(exp.old_logp, exp).tolist() == [
        [0, 0.25, 0, 0.0625],
        [0, 0.015625, 0, 0],
        [0, 0, 0, 0],
    ]
    in_reward = KLPenalty(coefficient=0.5)
    assert not in_reward.in_loss(exp.old_logp, exp).any()


def test_it_asks_for_what_it_compares(exp: Experience) -> None:
    penalty = KLPenalty(coefficient=0.5)
    with pytest.raises(RuntimeError, match="policy that acted"):
        penalty.in_reward(replace(exp, old_logp=None))
    with pytest.raises(RuntimeError, match="reference's"):
        penalty.in_reward(replace(exp, ref_logp=None))


def test_estimators_in_the_loss_by_hand(exp: Experience) -> None:
    """The policy has moved by log 2 on each token since it acted: r = log pi/ref grows by log 2, ratio 2."""
    assert exp.old_logp is not None
    logp = torch.where(exp.action, exp.old_logp + math.log(2), 9.0)
    two = math.log(2)
    k3s = [math.exp(-r) - 1 + r for r in (1 + two, 0.5 + two, -0.25 + two)]
    expected = {
        "k2": [(1 + two) ** 2 / 2, (0.5 + two) ** 2 / 2, (-0.25 + two) ** 2 / 2],
        "k2_row": [0, (1.5 + 2 * two) ** 2 / 2, (-0.25 + two) ** 2 / 2],  # once a row, on its last action
        "k3": k3s,
        "k3_token_ratio": [2 * k for k in k3s],
        "k3_prefix_ratio": [2 * k3s[0], 4 * k3s[1], 2 * k3s[2]],
    }
    for estimator, values in expected.items():
        penalty = KLPenalty(coefficient=0.5, place="loss", estimator=estimator)  # type: ignore[arg-type]
        found = penalty.in_loss(logp, exp)
        assert found[exp.action].tolist() == pytest.approx([v / 2 for v in values])
        assert not found[~exp.action].any()


def test_overlong_rows_pay_by_hand() -> None:
    """Limit 4, margin 2: up to two tokens nothing, three cost 1/2, four cost 1; on the last action token."""
    rows = [[1, *[2] * n] for n in (0, 1, 2, 3, 4)]
    exp = from_rows(rows, [[False, *[True] * (len(row) - 1)] for row in rows])
    price = Overlong(limit=4, margin=2).in_reward(exp)
    assert price.sum(-1).tolist() == [0, 0, 0, 0.5, 1]
    assert price[3].tolist() == [0, 0, 0, 0.5, 0]
    for margin in (0, 5):
        with pytest.raises(UserError, match=f"algorithm.overlong.margin: .* limit of 4, got {margin}"):
            Overlong(limit=4, margin=margin)


def test_reports_nats_a_row_and_the_coefficient_that_was_used(exp: Experience) -> None:
    # (1 + .5) and -.25 over the two rows with action tokens: .625
    penalty = KLPenalty(coefficient=0.5)
    assert penalty.observe(exp) == {"policy/kl": 0.625, "policy/kl_coefficient": 0.5}
    assert penalty.beta.item() == 0.5


def test_the_adaptive_coefficient_moves_after_each_rollout(exp: Experience) -> None:
    # KL .625 against .6: error .041667; 2 rows of 10: beta * (1 + .041667 / 5) = .504166...
    penalty = KLPenalty(coefficient=0.5, adaptive=Adaptive(target=0.6, horizon=10.0))
    first = penalty.in_reward(exp)
    assert penalty.observe(exp)["policy/kl_coefficient"] == 0.5  # the one that shaped this rollout
    assert penalty.beta.item() == pytest.approx(0.5 * (1 + (0.625 / 0.6 - 1) * 2 / 10))
    assert penalty.in_reward(exp)[0, 1] > first[0, 1]
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
    assert not penalty.in_reward(bare).any()
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
            "with algorithm.kl.place=loss use one of k2, k2_row, k3, k3_token_ratio, k3_prefix_ratio",
        ),
        ({"coefficient": -1.0}, "algorithm.kl.coefficient: expected at least 0, got -1.0"),
        (
            {"place": "los"},
            "algorithm.kl.place: expected one of reward, loss, got 'los'. Did you mean 'loss'?",
        ),
        (
            {"estimator": "k4"},
            "algorithm.kl.estimator: expected one of k1, k2, k2_row, k3, k3_token_ratio, k3_prefix_ratio, "
            "got 'k4'.",
        ),
        ({"adaptive": Adaptive(target=0.0)}, "algorithm.kl.adaptive: target and horizon must be above 0"),
    ],
)
def test_what_is_no_divergence_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        KLPenalty(**options)  # type: ignore[arg-type]
    assert str(caught.value).startswith(message)
