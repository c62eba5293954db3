"""The reliability of a reward model as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from feedtune.report.drawing import INK, colour_of, drawn, frame
from feedtune.report.reliability import Bin, interval

SIZE = (3.0, 2.6)  # inches of 72 SVG units
WIDEST = 8  # points across the dot of the bin with the most pairs


def picture(bins: Sequence[Bin], run: int) -> Markup:
    """Dots, the larger the more pairs, with intervals of 95 % and the diagonal of perfect calibration.

    Args:
        bins: at least one.
        run: the run's number on the page, which is its colour.
    """
    most = max(one.pairs for one in bins)

    def fill(axes: Any) -> None:
        frame(axes)
        axes.plot([0.5, 1], [0.5, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        shares = [one.predicted for one in bins]
        axes.plot(shares, [one.observed for one in bins], color=colour_of(run), linewidth=0.8, alpha=0.5)
        for one in bins:
            axes.plot([one.predicted] * 2, interval(one), color=colour_of(run), linewidth=1.2)
            width = WIDEST * math.sqrt(one.pairs / most)  # so that the area tells their number
            axes.plot([one.predicted], [one.observed], "o", color=colour_of(run), markersize=width)
        axes.set_xlim(0.48, 1.02)
        axes.set_ylim(min(0.48, *(interval(one)[0] - 0.02 for one in bins)), 1.02)
        axes.set_xlabel("expected share right", loc="right", labelpad=2, color=INK)
        axes.set_ylabel("share right", loc="top", labelpad=2, color=INK)

    return drawn(f"reliability {run}", SIZE, (0.17, 0.17, 0.8, 0.8), fill)
