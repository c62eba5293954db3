"""Calibration: whether what is held for likely comes true as often as is said.

Shapes: P predictions, K bins that hold some. Of preferences a prediction is Bradley and Terry's probability,
sigma(lead), that the response with the higher reward is preferred: it is 1/2 at least.
"""

from __future__ import annotations

import torch
from torch import Tensor


def reliability_curve(
    probability: Tensor, outcome: Tensor, bins: int = 10, lowest: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted and observed frequency and the count of each bin that holds a prediction, `[K]` each.

    The bins are equally wide, from `lowest` to 1; a prediction between two is of the upper one. On the
    diagonal, predicted = observed, a model is calibrated (DeGroot and Fienberg 1983).

    Args:
        probability: `[P]` in [lowest, 1].
        outcome: `[P]` in [0, 1]: 1, it came true; 0, it did not; 1/2, nobody can tell.
        bins: at least 1.
        lowest: what no prediction is below: 1/2 for those of the likelier of two outcomes.

    Raises:
        ValueError: a probability lies outside of [lowest, 1], or is NaN.

    >>> predicted, observed, count = reliability_curve(
    ...     torch.tensor([0.1, 0.75, 1.0]), torch.tensor([0.0, 1.0, 0.0]), bins=2
    ... )
    >>> predicted, observed, count
    (tensor([0.1000, 0.8750]), tensor([0.0000, 0.5000]), tensor([1, 2]))
    """
    if not bool(((probability >= lowest) & (probability <= 1)).all()):  # NaN is neither
        raise ValueError(f"expected probabilities in [{lowest}, 1]")
    place = ((probability - lowest) / (1 - lowest) * bins).long().clamp(max=bins - 1)  # [P]; 1 is of the last
    count = torch.bincount(place, minlength=bins)
    some = count > 0
    predicted = torch.bincount(place, probability, minlength=bins)[some] / count[some]
    observed = torch.bincount(place, outcome.to(probability), minlength=bins)[some] / count[some]
    return predicted.to(probability), observed.to(probability), count[some]


def expected_calibration_error(predicted: Tensor, observed: Tensor, count: Tensor) -> Tensor:
    """Mean distance of predicted from observed frequency, the bins weighted by their counts; a scalar.

    Naeini et al. 2015; Guo et al. 2017 (arXiv:1706.04599), equation 3. Chance alone gives a calibrated
    model about sqrt(K / P) / 3, as long as its predictions are spread over the bins.

    Args:
        predicted, observed, count: `[K]` each, as `reliability_curve` gives them.

    >>> expected_calibration_error(torch.tensor([0.2, 0.9]), torch.tensor([0.2, 0.5]), torch.tensor([1, 3]))
    tensor(0.3000)
    """
    return ((predicted - observed).abs() * count).sum() / count.sum()


def brier_score(probability: Tensor, outcome: Tensor) -> Tensor:
    """Mean squared distance of predictions from what happened, a scalar (Brier 1950).

    0 is perfect, 1/4 what "half and half" gets; it asks for calibration and for telling cases apart at once.

    Args:
        probability: `[P]` in [0, 1].
        outcome: `[P]` in [0, 1].

    >>> brier_score(torch.tensor([0.5, 1.0]), torch.tensor([1.0, 1.0]))
    tensor(0.1250)
    """
    return (probability - outcome.to(probability)).square().mean()
