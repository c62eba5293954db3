"""`close`: one sentence on where two tensors part."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from feedtune.testing.sameness import close

ROW = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("found", "expected", "said"),
    [
        (
            torch.tensor([[1.0, 2.0], [3.5, 4.0]]),
            ROW,
            "row 2: the largest difference is 0.5 at [1, 0] (3.5, expected 3), the tolerance 0.01",
        ),
        (
            torch.tensor(1.0),
            torch.tensor(2.0),
            "row 2: the largest difference is 1 (1, expected 2), the tolerance 0.01",
        ),
        (
            torch.tensor([1.0, math.nan]),
            torch.tensor([9.0, 1.0]),
            "row 2: the largest difference is nan at [1] (nan, expected 1), the tolerance 0.01",
        ),
        (ROW[0], ROW, "row 2: shape [2], expected [2, 2]"),
        (ROW.double(), ROW, "row 2: dtype torch.float64, expected torch.float32"),
    ],
)
def test_where_tensors_part_is_one_sentence(found: Tensor, expected: Tensor, said: str) -> None:
    with pytest.raises(AssertionError) as caught:
        close(found, expected, 0.01, "row 2")
    assert str(caught.value) == said


def test_what_is_within_the_tolerance_is_the_same() -> None:
    """100.9 lies within 0.01 and 1 % of 100, and not within 0.01 alone; NaN is the same as NaN."""
    hundred, more = torch.tensor([100.0, math.nan]), torch.tensor([100.9, math.nan])
    close(more, hundred, 0.01, "row")
    with pytest.raises(AssertionError, match="tolerance"):
        close(more, hundred, 0.01, "row", relative=0.0)
    close(torch.zeros(0, 3), torch.zeros(0, 3), 0.0, "no rows")
