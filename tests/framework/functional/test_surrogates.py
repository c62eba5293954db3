"""Clipped policy and value losses: every branch by hand, with its gradient."""

from __future__ import annotations

import pytest
import torch

from feedtune.functional import clipped_surrogate, clipped_value_loss

# ratio, advantage -> loss and d loss / d ratio with the interval [0.8, 1.3]
BRANCHES = [
    (1.1, 2.0, -2.2, -2.0),  # inside: -ratio A
    (1.5, 2.0, -2.6, 0.0),  # above, good: -1.3 A, no more to gain
    (0.5, 2.0, -1.0, -2.0),  # below, good: -ratio A, the way back pays
    (1.5, -2.0, 3.0, 2.0),  # above, bad: -ratio A, the way back pays
    (0.5, -2.0, 1.6, 0.0),  # below, bad: -0.8 A, no more to gain
    (1.0, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize(("ratio", "advantage", "loss", "slope"), BRANCHES)
def test_clipped_surrogate(ratio: float, advantage: float, loss: float, slope: float) -> None:
    r = torch.tensor(ratio, requires_grad=True)
    found = clipped_surrogate(r, torch.tensor(advantage), low=0.2, high=0.3)
    found.backward()
    assert found.item() == pytest.approx(loss)
    assert r.grad is not None
    assert r.grad.item() == pytest.approx(slope)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (5.0, -2.0, 6.0, 0.0),  # -ratio A = 10 is cut to -3 A = 6
        (2.0, -2.0, 4.0, 2.0),  # below the bound: as ever
        (5.0, 2.0, -2.6, 0.0),  # a good token knows no bound but the clip
        (0.5, -2.0, 1.6, 0.0),
    ],
)
def test_dual_clip(ratio: float, advantage: float, loss: float, slope: float) -> None:
    r = torch.tensor(ratio, requires_grad=True)
    found = clipped_surrogate(r, torch.tensor(advantage), low=0.2, high=0.3, dual=3.0)
    found.backward()
    assert found.item() == pytest.approx(loss)
    assert r.grad is not None
    assert r.grad.item() == pytest.approx(slope)


# value, old value, return -> loss and d loss / d value with clip 0.5
VALUE_BRANCHES = [
    (1.0, 0.8, 3.0, 2.0, -2.0),  # inside: (1 - 3)^2 / 2
    (2.0, 1.0, 3.0, 1.125, 0.0),  # moved too far towards the return: (1.5 - 3)^2 / 2 > (2 - 3)^2 / 2
    (2.0, 1.0, 0.0, 2.0, 2.0),  # moved too far from the return: 2^2 / 2 > 1.5^2 / 2
    (0.0, 1.0, -1.0, 1.125, 0.0),  # towards it from above: (0.5 + 1)^2 / 2 > 1 / 2
]


@pytest.mark.parametrize(("value", "old", "target", "loss", "slope"), VALUE_BRANCHES)
def test_clipped_value_loss(value: float, old: float, target: float, loss: float, slope: float) -> None:
    v = torch.tensor(value, requires_grad=True)
    found = clipped_value_loss(v, torch.tensor(old), torch.tensor(target), clip=0.5)
    found.backward()
    assert found.item() == pytest.approx(loss)
    assert v.grad is not None
    assert v.grad.item() == pytest.approx(slope)


def test_value_loss_without_clip_ignores_the_old_value() -> None:
    v = torch.tensor([1.0, -2.0], requires_grad=True)
    found = clipped_value_loss(v, torch.tensor([torch.nan, 9.0]), torch.tensor([4.0, -2.5]), clip=None)
    found.sum().backward()
    assert found.tolist() == [4.5, 0.125]
    assert v.grad is not None
    assert v.grad.tolist() == [-3.0, 0.5]
