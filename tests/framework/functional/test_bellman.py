"""Action values by hand."""

from __future__ import annotations

import math

import pytest
import torch

from feedtune.functional import (
    acting_logp,
    chosen_value,
    conservative_gap,
    double_value,
    dueling,
    expectile_loss,
    q_targets,
    soft_value,
)

T, F = True, False


def test_targets_skip_observations_and_stop_where_the_row_does() -> None:
    # gamma 1/2; V of the state before each token. Columns: prompt, a0, observation, a1, pad.
    # Row 0 is done:      y0 = 1 + 4/2 = 3, y1 = 2 (terminal: nothing follows).
    # Row 1 is truncated: y0 = 3,           y1 = 2 + 6/2 = 5 (bootstrap 6).
    action = torch.tensor([[F, T, F, T, F]] * 2)
    reward = torch.tensor([[9.0, 1.0, 9.0, 2.0, 9.0]] * 2)
    values = torch.tensor([[9.0, 8.0, 9.0, 4.0, 9.0]] * 2)
    found = q_targets(reward, values, action, 0.5, bootstrap=torch.tensor([0.0, 6.0]))
    assert found.tolist() == [[0, 3, 0, 2, 0], [0, 3, 0, 5, 0]]


def test_more_steps_sum_more_rewards() -> None:
    # gamma 1/2, actions a0 a1 a2 with an observation after a0; r = 1, 2, 4; V before them 8, 16, 32; then 64.
    # n = 2: y0 = 1 + 2/2 + 32/4 = 10, y1 = 2 + 4/2 + 64/4 = 20, y2 = 4 + 64/2 = 36 (the row ends earlier)
    # n = 3: y0 = 1 + 2/2 + 4/4 + 64/8 = 11, y1 and y2 as before; n = 4 changes nothing more
    action = torch.tensor([[F, T, F, T, T]])
    reward = torch.tensor([[9.0, 1.0, 9.0, 2.0, 4.0]])
    values = torch.tensor([[9.0, 8.0, 9.0, 16.0, 32.0]])
    bootstrap = torch.tensor([64.0])
    found = {n: q_targets(reward, values, action, 0.5, bootstrap, n)[0].tolist() for n in (1, 2, 3, 4)}
    assert found[1] == [0, 1 + 16 / 2, 0, 2 + 32 / 2, 36]
    assert found[2] == [0, 10, 0, 20, 36]
    assert found[3] == found[4] == [0, 11, 0, 20, 36]


def test_a_row_without_actions_has_no_target() -> None:
    found = q_targets(torch.ones(1, 2), torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool), 1.0)
    assert found.tolist() == [[0, 0]]


def test_the_chosen_value_of_several_networks() -> None:
    q = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    assert chosen_value(q, torch.tensor([1, 0]).expand(2, -1)).tolist() == [[2, 3], [6, 7]]


def test_the_double_value_is_the_targets_of_the_online_choice() -> None:
    q = torch.tensor([[1.0, 2.0, 0.0], [5.0, 2.0, 0.0]])
    target = torch.tensor([[5.0, -1.0, 7.0], [4.0, 9.0, 9.0]])
    assert double_value(q, target).tolist() == [-1, 4]


def test_the_soft_value_by_hand() -> None:
    # 2 log(e^(0/2) + e^(2 log 3 / 2)) = 2 log 4; with prior 3/4, 1/4: 2 log(3/4 + 3/4)
    q = torch.tensor([0.0, 2 * math.log(3)], dtype=torch.float64)
    assert soft_value(q, 2.0).item() == pytest.approx(2 * math.log(4))
    prior = torch.tensor([0.75, 0.25], dtype=torch.float64).log()
    assert soft_value(q, 2.0, prior).item() == pytest.approx(2 * math.log(1.5))
    assert soft_value(q, 1e-3).item() == pytest.approx(q.max().item())  # towards 0: the maximum
    assert soft_value(q, 1e6, prior).item() == pytest.approx(q[1].item() / 4, abs=1e-5)  # the prior's mean


def test_dueling_by_hand() -> None:
    assert dueling(torch.tensor([[10.0]]), torch.tensor([[1.0, 2.0, 6.0]])).tolist() == [[8, 9, 13]]


def test_the_conservative_gap_is_a_cross_entropy() -> None:
    # log(1 + 2 + 1) - log 2, and its gradient softmax - 1(token): 1/4, 2/4 - 1, 1/4
    q = torch.tensor([[0.0, math.log(2), 0.0]], requires_grad=True)
    gap = conservative_gap(q, torch.tensor([1]))
    assert gap.item() == pytest.approx(math.log(2))
    gap.sum().backward()  # type: ignore[no-untyped-call]
    assert q.grad is not None
    assert q.grad[0].tolist() == pytest.approx([0.25, -0.5, 0.25])


def test_the_expectile_loss_by_hand() -> None:
    # Too low by 2: .9 x 4; too high by 2: .1 x 4
    assert expectile_loss(torch.tensor([2.0, -2.0, 0.0]), 0.9).tolist() == pytest.approx([3.6, 0.4, 0.0])
    assert expectile_loss(torch.tensor([2.0, -2.0]), 0.5).tolist() == [2.0, 2.0]  # half the square


def test_how_it_acts_by_hand() -> None:
    values = torch.tensor([0.0, math.log(2), 0.0], dtype=torch.float64)
    softmax = [0.25, 0.5, 0.25]
    assert acting_logp(values, 1.0).exp().tolist() == pytest.approx(softmax)
    assert acting_logp(values, 1.0, 0.3).exp().tolist() == pytest.approx([0.7 * p + 0.1 for p in softmax])
    tied = torch.tensor([1.0, 1.0, 0.0])
    assert acting_logp(tied, 0.0, 0.3).exp().tolist() == pytest.approx([0.45, 0.45, 0.1])
    assert acting_logp(tied, 0.0).tolist() == pytest.approx([math.log(0.5), math.log(0.5), -math.inf])


def test_small_probabilities_stay_exact() -> None:
    """softmax and then log would give -inf: exp(-1000) is 0 in float32."""
    assert acting_logp(torch.tensor([0.0, 10.0]), 0.01).tolist() == pytest.approx([-1000.0, 0.0])
