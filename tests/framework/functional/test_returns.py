"""Returns and advantages against hand calculation and a row-by-row oracle in plain Python."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from feedtune.functional import action_index, generalized_advantages, next_values, returns_to_go

T, F = True, False

# Two responses with an observation between them, then a trailing observation and a pad:
#   column      0       1    2    3            4    5            6
#   token       prompt  a0   a1   observation  a2   observation  pad
# Row 0 is done; row 1 is the same, but was truncated with a bootstrap value of 2 after its last observation.
# The values and rewards at columns without action are traps: nothing may read them.
ACTION = torch.tensor([[F, T, T, F, T, F, F]] * 2)
REWARD = torch.tensor([[50.0, 1.0, 0.0, 60.0, 2.0, 70.0, 80.0]] * 2, dtype=torch.float64)
VALUES = torch.tensor([[91.0, 0.5, 1.0, 92.0, 0.25, 93.0, 94.0]] * 2, dtype=torch.float64)
BOOTSTRAP = torch.tensor([0.0, 2.0], dtype=torch.float64)


def test_returns_skip_observations_and_bootstrap_truncated_rows() -> None:
    # gamma 1/2. Row 0: G2 = 2; G1 = 0 + 2/2 = 1; G0 = 1 + 1/2 = 1.5.
    # Row 1:            G2 = 2 + 2/2 = 3; G1 = 3/2; G0 = 1 + 1.5/2 = 1.75.
    found = returns_to_go(REWARD, ACTION, 0.5, BOOTSTRAP)
    assert found.tolist() == [[0, 1.5, 1, 0, 2, 0, 0], [0, 1.75, 1.5, 0, 3, 0, 0]]


def test_next_value_is_that_before_the_next_action_token() -> None:
    found = next_values(VALUES, ACTION, BOOTSTRAP)
    assert found.tolist() == [[0, 1, 0.25, 0, 0, 0, 0], [0, 1, 0.25, 0, 2, 0, 0]]


def test_generalized_advantages_with_observations_and_a_truncated_row() -> None:
    # gamma = lambda = 1/2, so advantages decay by 1/4 a step.
    # Row 0: d2 = 2 + 0/2 - .25 = 1.75;    d1 = 0 + .25/2 - 1 = -.875;  d0 = 1 + 1/2 - .5 = 1
    #        A2 = 1.75;                    A1 = -.875 + 1.75/4 = -.4375; A0 = 1 - .4375/4 = .890625
    # Row 1: d2 = 2 + 2/2 - .25 = 2.75;    A1 = -.875 + 2.75/4 = -.1875; A0 = 1 - .1875/4 = .953125
    found = generalized_advantages(REWARD, VALUES, ACTION, 0.5, 0.5, BOOTSTRAP)
    assert found.tolist() == [
        [0, 0.890625, -0.4375, 0, 1.75, 0, 0],
        [0, 0.953125, -0.1875, 0, 2.75, 0, 0],
    ]


def test_action_index_counts_action_tokens_only() -> None:
    assert action_index(ACTION[:1]).tolist() == [[0, 0, 1, 0, 2, 0, 0]]


def oracle(
    reward: list[float], values: list[float], action: list[bool], gamma: float, lam: float, after: float
) -> tuple[list[float], list[float]]:
    """Sum definitions on the row's action tokens: G_t = sum_k gamma^k r, A_t = sum_k (gamma lam)^k delta."""
    r = [x for x, a in zip(reward, action, strict=True) if a]
    v = [x for x, a in zip(values, action, strict=True) if a] + [after]
    n = len(r)
    delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(n)]
    returns = [sum(gamma ** (k - t) * r[k] for k in range(t, n)) + gamma ** (n - t) * after for t in range(n)]
    advantages = [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, n)) for t in range(n)]
    return returns, advantages


def random_case(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (6, 9)
    reward = torch.randn(shape, generator=generator, dtype=torch.float64)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    action = torch.rand(shape, generator=generator) < 0.5
    action[0], action[1] = False, False
    action[1, 4] = True  # a row without action tokens, a row of one
    return reward, values, action, torch.randn(6, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.95), (0.5, 0.0), (0.0, 0.7), (1.0, 0.0)])
def test_agrees_with_the_sum_definitions(gamma: float, lam: float) -> None:
    reward, values, action, after = random_case(seed=3)
    returns = returns_to_go(reward, action, gamma, after)
    advantages = generalized_advantages(reward, values, action, gamma, lam, after)
    for row in range(len(action)):
        expected = oracle(
            reward[row].tolist(), values[row].tolist(), action[row].tolist(), gamma, lam, float(after[row])
        )
        assert returns[row][action[row]].tolist() == pytest.approx(expected[0], abs=1e-12)
        assert advantages[row][action[row]].tolist() == pytest.approx(expected[1], abs=1e-12)
    assert not returns[~action].any()
    assert not advantages[~action].any()


def test_lambda_one_is_return_less_value() -> None:
    reward, values, action, after = random_case(seed=4)
    found = generalized_advantages(reward, values, action, 0.9, 1.0, after)
    expected = torch.where(action, returns_to_go(reward, action, 0.9, after) - values, 0)
    torch.testing.assert_close(found, expected)


def test_no_bootstrap_is_a_bootstrap_of_zero() -> None:
    reward, values, action, _ = random_case(seed=5)
    zero = torch.zeros(6, dtype=torch.float64)
    assert torch.equal(returns_to_go(reward, action, 0.9), returns_to_go(reward, action, 0.9, zero))
    assert torch.equal(next_values(values, action), next_values(values, action, zero))


def test_what_lies_outside_the_action_tokens_changes_nothing() -> None:
    reward, values, action, after = random_case(seed=6)
    noise = torch.where(action, 0.0, torch.full_like(reward, torch.nan))
    clean = generalized_advantages(reward, values, action, 0.9, 0.8, after)
    assert torch.equal(generalized_advantages(reward + noise, values + noise, action, 0.9, 0.8, after), clean)
    assert torch.equal(
        returns_to_go(reward + noise, action, 0.9, after), returns_to_go(reward, action, 0.9, after)
    )
