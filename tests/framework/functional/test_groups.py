"""Statistics among peers: groups by number, what counts, and what there is none of."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from feedtune.functional import peer_deviation, peer_mean, peers_differ

NUMBERS = st.floats(-10, 10, allow_nan=False, width=32)
ROWS = st.lists(st.tuples(NUMBERS, st.booleans(), st.integers(0, 3)), min_size=1, max_size=12)


@given(ROWS)
def test_against_numpy_group_by_group(rows: list[tuple[float, bool, int]]) -> None:
    values = torch.tensor([r[0] for r in rows], dtype=torch.float64)
    counted = torch.tensor([r[1] for r in rows])
    group = torch.tensor([r[2] for r in rows])
    for peers in (group, None):
        mean = peer_mean(values, counted, peers)
        others = peer_mean(values, counted, peers, leave_one_out=True)
        deviation = peer_deviation(values, counted, peers)
        for i, (own, counts, number) in enumerate(rows):
            mine = [v for v, c, g in rows if c and (peers is None or g == number)]
            left = list(mine)
            if counts:
                left.remove(own)
            torch.testing.assert_close(mean[i].item(), float(np.mean(mine)) if mine else 0.0)
            torch.testing.assert_close(others[i].item(), float(np.mean(left)) if left else 0.0)
            spread = float(np.std(mine, ddof=1)) if len(mine) > 1 else 0.0
            torch.testing.assert_close(deviation[i].item(), spread, atol=1e-9, rtol=1e-9)
        differ = peers_differ(values, counted, peers)
        for i, (_, _, number) in enumerate(rows):
            mine = {v for v, c, g in rows if c and (peers is None or g == number)}
            assert differ[i].item() == (len(mine) > 1)
