"""Q-learning targets by hand."""

from __future__ import annotations

import torch

from feedtune.functional import q_targets

T, F = True, False


def test_targets_skip_observations_and_stop_where_the_row_does() -> None:
    # gamma 1/2; V of the state before each token. Columns: prompt, a0, observation, a1, pad.
    # Row 0 is done:      y0 = 1 + 4/2 = 3, y1 = 2 (terminal: nothing follows).
    # Row 1 is truncated: y0 = 3,           y1 = 2 + 6/2 = 5 (bootstrap 6).
    action = torch.tensor([[F, T, F, T, F]] * 2)
    reward = torch.tensor([[9.0, 1.0, 9.0, 2.0, 9.0]] * 2)
    values = torch.tensor([[9.0, 8.0, 9.0, 4.0, 9.0]] * 2)
    found = q_targets(reward, values, action, 0.5, bootstrap=torch.tensor([0.0, 6.0]))
    assert found.tolist() == [[0, 3, 0, 2, 0], [0, 3, 0, 5, 0]]


def test_a_row_without_actions_has_no_target() -> None:
    found = q_targets(torch.ones(1, 2), torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool), 1.0)
    assert found.tolist() == [[0, 0]]
