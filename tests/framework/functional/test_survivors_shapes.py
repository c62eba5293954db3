"""Formulas over several rows at once, and values on the border of a case: where a slip shows only there."""

from __future__ import annotations

import math

import pytest
import torch

from feedtune.functional import (
    acting_logp,
    capped_weight_loss,
    clipped_surrogate,
    expectile_loss,
    hinge_loss,
    next_values,
    overlong_penalty,
    pairs_of,
    returns_to_go,
    row_ratio,
    soft_value,
    whiten,
)

T, F = True, False


def test_the_soft_value_of_several_states() -> None:
    # log(1 + 3) = log 4 and log(2 + 6) = log 8: over the tokens of a state, not over the states
    q = torch.tensor([[1.0, 3.0], [2.0, 6.0]], dtype=torch.float64).log()
    assert soft_value(q, 1.0).tolist() == pytest.approx([math.log(4), math.log(8)])


def test_how_several_states_act() -> None:
    # Row 0 ties over both of its best: .8 / 2 + .2 / 3; row 1 has one best: .8 + .2 / 3. Other tokens .2 / 3.
    values = torch.tensor([[4.0, 4.0, 2.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    greedy = [[0.4 + 0.2 / 3, 0.4 + 0.2 / 3, 0.2 / 3], [0.2 / 3, 0.2 / 3, 0.8 + 0.2 / 3]]
    assert acting_logp(values, 0.0, 0.2).exp().tolist() == [pytest.approx(row) for row in greedy]
    # Boltzmann at temperature 2 of 2 log 1 and 2 log 3, and of 2 log 2 and 2 log 6: 1/4 and 3/4 each
    softmax = acting_logp(2 * torch.tensor([[1.0, 3.0], [2.0, 6.0]], dtype=torch.float64).log(), 2.0)
    assert softmax.exp().flatten().tolist() == pytest.approx([0.25, 0.75] * 2)


def test_an_error_below_one_is_still_too_low() -> None:
    # .9 x .25 where V is too low by a half; .1 x .25 where it is too high by a half
    assert expectile_loss(torch.tensor([0.5, -0.5]), 0.9).tolist() == pytest.approx([0.225, 0.025])


def test_whitening_adds_its_eps_to_the_deviation() -> None:
    # Of 1 and 3: mean 2, deviation sqrt 2; -1 / (sqrt 2 + 1) = 1 - sqrt 2
    found = whiten(torch.tensor([1.0, 3.0], dtype=torch.float64), torch.tensor([T, T]), eps=1.0)
    assert found.tolist() == pytest.approx([1 - math.sqrt(2), math.sqrt(2) - 1])


def test_the_first_row_of_a_tie_is_the_chosen_one() -> None:
    chosen, rejected = pairs_of(torch.tensor([1.0, 1.0]), torch.tensor([4, 4]))
    assert (chosen.tolist(), rejected.tolist()) == ([0], [1])


def test_a_hinge_has_no_loss_beyond_either_side() -> None:
    # beta delta = -2: the right label costs 1 + 2 = 3, the wrong one max(0, 1 - 2) = 0: .75 x 3 = 2.25
    # beta delta = 2: the other way round, .25 x 3 = .75
    assert hinge_loss(torch.tensor([-2.0, 2.0]), 1.0, 0.25).tolist() == pytest.approx([2.25, 0.75])


def test_rows_of_one_token() -> None:
    one, action = torch.tensor([[3.0], [5.0]]), torch.tensor([[T], [F]])
    assert returns_to_go(one, action, 0.5).tolist() == [[3], [0]]
    assert next_values(one, action).tolist() == [[0], [0]]
    assert next_values(one, action, torch.tensor([7.0, 8.0])).tolist() == [[7], [0]]


def test_a_dual_bound_is_for_negative_advantages_alone() -> None:
    # Ratio .5, A .5: the loss is -.25 and stays; with the bound it would be min(-.25, -2 x .5) = -1
    assert clipped_surrogate(torch.tensor([0.5]), torch.tensor([0.5]), 0.2, 0.2, dual=2.0).tolist() == [-0.25]


def test_the_ratio_of_a_row_is_the_geometric_mean_of_its_tokens() -> None:
    # Row 0: ratios 2 and 8 on its two actions, sqrt 16 = 4; row 1: 3 alone; row 2 has no action: 1.
    # What stands on other tokens counts nowhere, and their ratio is 1.
    log_ratio = torch.tensor([[7.0, 2.0, 8.0], [7.0, 3.0, 7.0], [7.0, 7.0, 7.0]], dtype=torch.float64).log()
    action = torch.tensor([[F, T, T], [F, T, F], [F, F, F]])
    found = row_ratio(log_ratio, action)
    assert found.flatten().tolist() == pytest.approx([1, 4, 4, 1, 3, 1, 1, 1, 1])


def test_the_overlong_penalty_by_hand() -> None:
    # Limit 8, margin 4: nothing up to 4 tokens, a quarter more for each token after them, 1 from 8 on
    length = torch.tensor([1.0, 4.0, 5.0, 6.0, 8.0, 9.0])
    assert overlong_penalty(length, 8, 4).tolist() == [0, 0, -0.25, -0.5, -1, -1]


def test_a_capped_weight_takes_no_part_in_the_gradient() -> None:
    # Ratios .5 and 4 under a cap of 3: weights .5 and 3. Loss -w A log pi: -.5 x 2 x -1, -3 x -4 x -2;
    # its slope in log pi is -w A = -1 and 12, though the ratio moves with log pi.
    logp = torch.tensor([-1.0, -2.0], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([-1 + math.log(2), -2 - math.log(4)], dtype=torch.float64)
    loss = capped_weight_loss(logp, (logp - old).exp(), torch.tensor([2.0, -4.0]), cap=3.0)
    assert loss.tolist() == pytest.approx([1, -24])
    assert torch.autograd.grad(loss.sum(), logp)[0].tolist() == pytest.approx([-1, 12])
