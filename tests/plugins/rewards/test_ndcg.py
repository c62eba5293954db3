"""reward=ndcg by hand and against scikit-learn, and columns that hold no grades."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune_plugins.rewards.ndcg import NDCG

GRADES = {"music": 2, "food": 1, "work": 0}
SECOND = 1 / math.log2(3)
IDEAL = 3 + SECOND  # gains 3, 1, 0


def score(ranking: str, grades: object = GRADES, **options: object) -> float:
    (found,) = NDCG(**options)([Sample("?", ranking, columns={"relevance": grades})]).tolist()  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("ranking", "expected"),
    [
        ("music food work", 1.0),
        ("food music work", (1 + 3 * SECOND) / IDEAL),
        ("music", 3 / IDEAL),  # compared with the best of all three
        ("dogs music food", (3 * SECOND + 0.5) / IDEAL),
        ("music music food", (3 + 0.5) / IDEAL),
        ("a b c d music", 3 / math.log2(6) / IDEAL),  # deeper than there are documents
        ("work", 0.0),
        ("", 0.0),
    ],
)
def test_by_hand(ranking: str, expected: float) -> None:
    assert score(ranking) == pytest.approx(expected, abs=1e-6)


def test_only_the_first_places_count() -> None:
    assert score("food music work", at=1) == pytest.approx(1 / 3, abs=1e-6)
    assert score("work music food", at=1) == 0
    assert score("music food", at=9) == pytest.approx(1.0)
    with pytest.raises(UserError, match=r"reward\.at: expected 1 or more, got 0"):
        NDCG(at=0)


@pytest.mark.parametrize("at", [None, 2])
def test_as_scikit_learn_has_it(at: int | None) -> None:
    grades = {"a": 0, "b": 3, "c": 1, "d": 1, "e": 2}
    gains = np.array([2.0**grade - 1 for grade in grades.values()])
    for order in itertools.permutations(grades):
        places = [-order.index(title) for title in grades]
        expected = ndcg_score([gains], [places], k=at)
        assert score(" ".join(order), grades, at=at) == pytest.approx(expected, abs=1e-6)


def test_no_relevant_document_is_no_opinion() -> None:
    assert math.isnan(score("music", {"music": 0}))
    assert math.isnan(score("music", None))
    assert math.isnan(score("music", {}))


@pytest.mark.parametrize("grades", ["music", ["music"], {"music": "good"}, {"music": -1}, {"music": True}])
def test_other_columns_are_refused(grades: object) -> None:
    with pytest.raises(UserError, match=r"reward\.column: column 'relevance' should hold each"):
        score("music", grades)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(UserError, match=r"no column 'relevance'; it has: relevances\. Did you mean"):
        NDCG()([Sample("?", "music", columns={"relevances": GRADES})])
