"""Straight lines through a few points: is a cost linear? Standard library alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def linear_fit(xs: Sequence[float], ys: Sequence[float]) -> dict[str, float]:
    """Least squares of y = slope x + intercept, R^2, and the slope between logarithms (1: proportional).

    >>> linear_fit([1, 2, 4], [3, 5, 9])["slope"], linear_fit([1, 2, 4], [3, 5, 9])["r2"]
    (2.0, 1.0)
    >>> round(linear_fit([1, 2, 4], [1, 4, 16])["loglog_slope"], 6)  # quadratic
    2.0
    """
    slope, intercept = statistics.linear_regression(xs, ys)
    logs = [math.log(x) for x in xs], [math.log(y) for y in ys]
    found = {
        "slope": slope,
        "intercept": intercept,
        "r2": statistics.correlation(xs, ys) ** 2,
        "loglog_slope": statistics.linear_regression(*logs).slope,
    }
    return {name: round(value, 6) for name, value in found.items()}
