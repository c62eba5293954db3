"""Numbers for people."""

from __future__ import annotations

import math


def number(value: float) -> str:
    """A number for people, of about three digits; a dash for NaN.

    >>> [number(x) for x in (0.12345, -2.0, 1234.5, 0.000012, float("nan"))]
    ['0.123', '−2', '1,234', '1.2e−05', '–']
    """
    if math.isnan(value):
        return "\N{EN DASH}"
    large = 999.5 <= abs(value) < 1e6
    return (f"{value:,.0f}" if large else f"{value:.3g}").translate({ord("-"): "\N{MINUS SIGN}"})
