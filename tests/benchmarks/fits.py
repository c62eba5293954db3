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


def two_costs(first: Sequence[float], second: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """The a and b of y = a first + b second that make the sum of squared relative errors least.

    >>> two_costs([1, 2, 4], [3, 1, 1], [5, 5, 9])
    (2.0, 1.0)
    """
    rows = [(x / y, z / y) for x, z, y in zip(first, second, ys, strict=True)]
    xx, xz, zz = (math.fsum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    x, z = (math.fsum(row[i] for row in rows) for i in (0, 1))
    determinant = xx * zz - xz * xz
    found = (x * zz - z * xz) / determinant, (z * xx - x * xz) / determinant
    return float(f"{found[0]:.12g}"), float(f"{found[1]:.12g}")
