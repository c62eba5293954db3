"""Group-relative, greedy-baseline and whitened Monte Carlo advantages by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from feedtune.experience import Experience, from_rows
from feedtune_plugins.algorithms import MonteCarlo

T, F = True, False
NAN = math.nan


def rows(scores: list[float], group: list[int] | None = None) -> Experience:
    """One action token a row, in float64."""
    count = len(scores)
    exp = from_rows([[1, 2]] * count, [[F, T]] * count, scores=scores, group=group)
    return replace(exp, reward=exp.reward.double())


def of_rows(estimator: MonteCarlo, exp: Experience) -> list[float]:
    return estimator(exp, exp.reward).advantage[:, 1].tolist()


def grpo(eps: float = 1e-12) -> MonteCarlo:
    return MonteCarlo(credit="row", baseline="mean", scope="group", scale="rows", eps=eps)


def test_three_readings_of_one_group() -> None:
    """Scores 0 0 0 1: mean 1/4, deviation sqrt((3/16 + 9/16) / 3) = 1/2; the others' means 1/3 and 0."""
    exp = rows([0.0, 0.0, 0.0, 1.0], [0] * 4)
    assert of_rows(grpo(), exp) == pytest.approx([-0.5, -0.5, -0.5, 1.5])
    centred = MonteCarlo(credit="row", baseline="mean", scope="group")
    assert of_rows(centred, exp) == pytest.approx([-0.25, -0.25, -0.25, 0.75])
    rloo = MonteCarlo(credit="row", baseline="leave_one_out", scope="group")
    assert of_rows(rloo, exp) == pytest.approx([-1 / 3, -1 / 3, -1 / 3, 1.0])


def test_eps_is_added_to_the_deviation() -> None:
    exp = rows([0.0, 0.0, 0.0, 1.0], [0] * 4)
    assert of_rows(grpo(eps=0.5), exp) == pytest.approx([-0.25, -0.25, -0.25, 0.75])


def test_every_group_has_its_own_deviation() -> None:
    # 4 and 6: mean 5, deviation sqrt(2). Group of one: nothing to compare with.
    exp = rows([4.0, 0.0, 6.0, 1.0, 9.0], [7, 2, 7, 2, 5])
    root = 1 / math.sqrt(2)
    assert of_rows(grpo(), exp) == pytest.approx([-root, -root, root, root, 0.0])


def test_a_group_whose_raw_scores_are_equal_is_worth_nothing() -> None:
    """Whatever was taken off them since: .1 three times, of which a penalty makes three numbers."""
    exp = rows([0.1, 0.1, 0.1, 1.0, 2.0], [0, 0, 0, 1, 1])
    shaped = exp.reward.clone()
    shaped[:, 1] -= torch.tensor([0.5, 0.0, 0.25, 0.0, 0.0])
    found = grpo()(exp, shaped).advantage[:, 1].tolist()
    assert found[:3] == [0.0, 0.0, 0.0]
    assert found[3:] == pytest.approx([-1 / math.sqrt(2), 1 / math.sqrt(2)])
    # In float32, where the mean of three times .1 is not .1:
    single = replace(exp, reward=exp.reward.float())
    assert grpo()(single, single.reward).advantage[:3, 1].tolist() == [0.0, 0.0, 0.0]


def test_rows_without_a_score_are_no_members() -> None:
    with_it, without = rows([1.0, NAN, 4.0, 7.0], [0, 0, 0, 0]), rows([1.0, 4.0, 7.0], [0, 0, 0])
    found = of_rows(grpo(), with_it)
    assert found.pop(1) == 0.0
    assert found == pytest.approx(of_rows(grpo(), without))
    alone = rows([1.0, NAN], [0, 0])
    assert of_rows(grpo(), alone) == [0.0, 0.0]


def test_the_whole_rollout_can_be_the_group() -> None:
    exp = rows([0.0, 0.0, 0.0, 1.0], [0, 1, 2, 3])
    estimator = MonteCarlo(credit="row", baseline="mean", scope="rollout", scale="rows", eps=1e-12)
    assert of_rows(estimator, exp) == pytest.approx([-0.5, -0.5, -0.5, 1.5])


def test_row_credit_gives_every_token_the_whole_discounted_return() -> None:
    # gamma 1/2, rewards 2 and 4 with an observation between: R = 2 + 4/2 = 4; the other row has 1. Mean 2.5.
    exp = from_rows([[1, 2, 9, 3], [1, 2]], [[F, T, F, T], [F, T]], scores=[4.0, 1.0])
    exp.reward[0, 1] = 2.0
    found = MonteCarlo(credit="row", gamma=0.5, baseline="mean")(exp, exp.reward)
    assert found.advantage.tolist() == [[0, 1.5, 0, 1.5], [0, -1.5, 0, 0]]
    assert found.returns.tolist() == [
        [0, 4, 0, 4],
        [0, 1, 0, 0],
    ]  # a value head is still fitted to what follows


def test_the_greedy_score_is_the_baseline_of_its_prompt() -> None:
    exp = rows([1.0, 2.0, 5.0, 6.0], [0, 0, 1, 1])
    exp = exp.with_(greedy=torch.tensor([1.5, 1.5, 4.0, 4.0]))
    estimator = MonteCarlo(credit="row", baseline="greedy")
    assert estimator.needs() == {"greedy"}
    assert of_rows(estimator, exp) == [-0.5, 0.5, 1.0, 2.0]
    # A greedy response without a score: the mean of the others' stands in; with none at all, 0.
    partly = exp.with_(greedy=torch.tensor([NAN, NAN, 4.0, 4.0]))
    assert of_rows(estimator, partly) == [-3.0, -2.0, 1.0, 2.0]
    silent = exp.with_(greedy=torch.full((4,), NAN))
    assert of_rows(estimator, silent) == [1.0, 2.0, 5.0, 6.0]


def test_tokens_are_whitened_together() -> None:
    """Row 0 has two tokens of return 3, row 1 one of 0: mean 2, sample variance (1 + 1 + 4) / 2 = 3."""
    exp = from_rows([[1, 2, 3], [1, 2]], [[F, T, T], [F, T]], scores=[3.0, 0.0])
    found = MonteCarlo(baseline="none", scale="tokens", eps=1e-12)(exp, exp.reward)
    root = math.sqrt(3)
    assert found.advantage.flatten().tolist() == pytest.approx([0, 1 / root, 1 / root, 0, -2 / root, 0])
    assert found.returns.tolist() == [[0, 3, 3], [0, 0, 0]]
