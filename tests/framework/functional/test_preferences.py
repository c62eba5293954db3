"""Preference losses by hand; pairs and best rows against a plain sort."""

from __future__ import annotations

import math
import random

import pytest
import torch

from feedtune.functional import (
    best_of_groups,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    pairs_of,
    pairwise_reward_loss,
)

DELTA = torch.tensor([math.log(3), -math.log(3), 0.0], dtype=torch.float64)


def test_dpo_by_hand() -> None:
    # beta 1: sigmoid(log 3) = 3/4 and sigmoid(-log 3) = 1/4, so the losses are log 4/3, log 4 and log 2;
    # beta 2: sigmoid(2 log 3) = 9/10, so log 10/9, log 10 and log 2.
    for beta, odds in ((1.0, 3.0), (2.0, 9.0)):
        expected = [math.log(1 + 1 / odds), math.log(1 + odds), math.log(2)]
        assert dpo_loss(DELTA, beta).tolist() == pytest.approx(expected, rel=1e-12)


def test_dpo_smoothed_by_hand() -> None:
    # .8 log 4/3 + .2 log 4 = .23015 + .27726 = .50741; the other way round .8 log 4 + .2 log 4/3 = 1.16657
    smoothed = [0.8 * math.log(4 / 3) + 0.2 * math.log(4), 0.8 * math.log(4) + 0.2 * math.log(4 / 3)]
    assert smoothed == pytest.approx([0.507405, 1.166572], abs=1e-6)
    assert dpo_loss(DELTA, 1.0, 0.2).tolist() == pytest.approx([*smoothed, math.log(2)], rel=1e-12)


def test_hinge_by_hand() -> None:
    delta = torch.tensor([3.0, 1.0, -1.0], dtype=torch.float64)
    # beta .5: beta delta = 1.5, .5, -.5, so 1 - beta delta = -.5, .5, 1.5
    assert hinge_loss(delta, 0.5).tolist() == [0.0, 0.5, 1.5]
    # smoothed by .2: .8 (0, .5, 1.5) + .2 (2.5, 1.5, .5) = .5, .7, 1.3
    assert hinge_loss(delta, 0.5, 0.2).tolist() == pytest.approx([0.5, 0.7, 1.3])


def test_ipo_by_hand() -> None:
    delta = torch.tensor([3.0, 1.0, -1.0], dtype=torch.float64)
    # beta .5: 1 / (2 beta) = 1, so (2, 0, -2) squared
    assert ipo_loss(delta, 0.5).tolist() == [4.0, 0.0, 4.0]
    # smoothed by .25: .75 (4, 0, 4) + .25 (16, 4, 0) = 7, 1, 3
    assert ipo_loss(delta, 0.5, 0.25).tolist() == [7.0, 1.0, 3.0]


def test_reward_pairs_by_hand() -> None:
    chosen, rejected = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    # -log sigmoid(2) = log(1 + e^-2) = .126928, and 2 more where the order is wrong
    assert pairwise_reward_loss(chosen, rejected).tolist() == pytest.approx([0.126928, 2.126928], abs=1e-6)
    # a margin of 2 asks for what is there: log 2; with the wrong order log(1 + e^4) = 4.018150
    assert pairwise_reward_loss(chosen, rejected, 2.0).tolist() == pytest.approx(
        [0.693147, 4.018150], abs=1e-6
    )


def test_far_leads_neither_overflow_nor_vanish() -> None:
    far = torch.tensor([1e4, -1e4], dtype=torch.float64, requires_grad=True)
    losses = dpo_loss(far, 1.0)
    assert losses.tolist() == [0.0, 1e4]
    (gradient,) = torch.autograd.grad(losses.sum(), [far])
    assert gradient.tolist() == [0.0, -1.0]


def test_pairs_are_found_wherever_their_rows_stand() -> None:
    """Scores are all different, so each names its row."""
    score = torch.tensor([3.0, 1.0, 6.0, 5.0, 2.0, 4.0])
    group = torch.tensor([9, 2, 2, 9, 5, 5])
    generator = random.Random(0)
    for _ in range(10):
        order = list(range(6))
        generator.shuffle(order)
        chosen, rejected = pairs_of(score[order], group[order])
        found = set(zip(score[order][chosen].tolist(), score[order][rejected].tolist(), strict=True))
        assert found == {(6.0, 1.0), (4.0, 2.0), (5.0, 3.0)}


@pytest.mark.parametrize(("group", "message"), [([0, 0, 0], "group 0 has 3"), ([0, 0, 4], "group 4 has 1")])
def test_groups_that_are_no_pairs(group: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{message} rows, expected two$"):
        pairs_of(torch.zeros(len(group)), torch.tensor(group))


def test_no_rows_make_no_pairs() -> None:
    chosen, rejected = pairs_of(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert len(chosen) == len(rejected) == 0


def test_the_best_of_groups_are_those_of_a_plain_sort() -> None:
    generator = random.Random(1)
    for _ in range(200):
        count, keep = generator.randint(1, 9), generator.randint(1, 4)
        score = [float(generator.randint(0, 3)) for _ in range(count)]  # many ties
        counted = [generator.random() < 0.8 for _ in range(count)]
        group = [generator.randint(0, 2) for _ in range(count)]
        expected = set[int]()
        for number in set(group):
            rows = [i for i in range(count) if group[i] == number and counted[i]]
            expected |= set(sorted(rows, key=lambda i: (-score[i], i))[:keep])
        found = best_of_groups(torch.tensor(score), torch.tensor(counted), torch.tensor(group), keep)
        assert set(found.nonzero().flatten().tolist()) == expected
