"""nDCG by hand, against scikit-learn, and its bounds over every order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score

from feedtune.functional import dcg, discounts, ndcg


def test_by_hand() -> None:
    # 1 / log2(2) = 1, 1 / log2(3) = .63093, 1 / log2(4) = .5
    assert discounts(3).tolist() == pytest.approx([1.0, 0.63093, 0.5], abs=1e-5)
    # 3 x 1 + 0 + 1 x .5 = 3.5; the best order 3, 1, 0: 3 + .63093 = 3.63093
    assert float(dcg(torch.tensor([3.0, 0.0, 1.0]))) == pytest.approx(3.5)
    found = ndcg(torch.tensor([3.0, 0.0, 1.0]), torch.tensor([1.0, 3.0, 0.0]))
    assert float(found) == pytest.approx(3.5 / 3.63093, abs=1e-5)


def test_no_relevant_document_is_no_number() -> None:
    assert bool(ndcg(torch.zeros(2), torch.zeros(2)).isnan())


@pytest.mark.parametrize("seed", range(5))
def test_as_scikit_learn_has_it(seed: int) -> None:
    gains = np.random.default_rng(seed).integers(0, 4, size=6).astype(float)
    gains[0] += 1  # or all might be 0
    for order in itertools.islice(itertools.permutations(range(6)), seed, None, 97):
        places = np.empty(6)
        places[list(order)] = np.arange(6, 0, -1)  # a score that sorts the documents into this order
        expected = ndcg_score([gains], [places])
        found = ndcg(torch.tensor(gains[list(order)]), torch.tensor(gains))
        assert float(found) == pytest.approx(expected, abs=1e-12)


def test_the_best_order_alone_is_perfect() -> None:
    gains = torch.tensor([0.0, 1.0, 3.0, 3.0])
    orders = [gains[list(order)] for order in itertools.permutations(range(4))]
    scores = ndcg(torch.stack(orders), gains.expand(len(orders), -1))
    assert float(scores.max()) == pytest.approx(1.0, abs=1e-12)
    for order, score in zip(orders, scores.tolist(), strict=True):
        assert (score > 1 - 1e-12) == (order.tolist() == [3.0, 3.0, 1.0, 0.0])
