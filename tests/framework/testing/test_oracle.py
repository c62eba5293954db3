"""The oracle against itself: every answer by a second way, and a world small enough for pencil and paper."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from feedtune.testing import oracle
from feedtune.testing.oracle import NOWHERE, World

WORLDS: dict[str, Callable[[], World]] = {
    "tokens": lambda: World(vocab_size=3, length=2, seed=1),
    "rows": lambda: World(vocab_size=2, length=4, reward="row", seed=2),
    "prompts": lambda: World(prompts=[(1,), (2, 0)], prompt_probability=[0.3, 0.7], seed=3),
    "truncated": lambda: World(vocab_size=3, length=2, cut="truncated", seed=4),
    "five": lambda: World(vocab_size=5, length=2, eos=0, prompts=[(1, 2)], seed=5),
    "turns": lambda: World(vocab_size=3, length=2, turns=2, observation=2, seed=6),
    "truncated turns": lambda: World(vocab_size=2, length=2, turns=2, reward="row", cut="truncated", seed=7),
}


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param]()


@pytest.fixture
def logits(world: World) -> np.ndarray:
    return world.random_logits(seed=11)


@pytest.fixture
def reference(world: World) -> np.ndarray:
    return world.random_logits(seed=12)


def close(found: np.ndarray, expected: np.ndarray, atol: float = 1e-12) -> None:
    assert np.abs(expected).max() > 1e-3  # the comparison says something
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def time_of(world: World) -> np.ndarray:
    """How many tokens were chosen before each state."""
    found = np.zeros(len(world.states))
    for row in world.rows:
        found[row.states] = np.arange(len(row.states))
    return found


# Pencil and paper


def two_tokens() -> tuple[World, np.ndarray]:
    """Prompt 0; token 1 ends a row; at most two tokens. In state A nothing was said, in state B a 0.

    pi(0 | A) = 3/4, pi(0 | B) = 1/4. A pays 1 for 0 and 2 for 1, B pays 8 and 0.
    Rows: 00 with 3/16, worth 1 + 8 = 9; 01 with 9/16, worth 1; 1 with 1/4, worth 2.
    """
    pays = {((0,), 0): 1.0, ((0,), 1): 2.0, ((0, 0), 0): 8.0, ((0, 0), 1): 0.0}
    world = World(vocab_size=2, length=2, prompts=[(0,)], reward=lambda context, token: pays[context, token])
    return world, np.log([[3.0, 1.0], [1.0, 3.0]])


def test_two_tokens_by_hand() -> None:
    world, logits = two_tokens()
    assert [row.tokens[1:] for row in world.rows] == [(0, 0), (0, 1), (1,)]
    assert [row.ended for row in world.rows] == [False, True, True]
    assert [row.score for row in world.rows] == [9, 1, 2]
    close(oracle.row_probability(world, logits), np.array([3, 9, 4]) / 16)
    assert oracle.expected_return(world, logits) == pytest.approx((27 + 9 + 8) / 16)
    # V(B) = 1/4 8 = 2; Q(A, 0) = 1 + 2 = 3; V(A) = 3/4 3 + 1/4 2 = 11/4
    close(oracle.state_values(world, logits), np.array([11 / 4, 2]))
    close(oracle.action_values(world, logits), np.array([[3.0, 2], [8, 0]]))
    close(oracle.advantages(world, logits), np.array([[1 / 4, -3 / 4], [6, -2]]))
    # visits (1 and 3/4) times pi times advantage: 3/4 1/4 = 3/16 at A; 3/4 1/4 6 = 9/8 at B
    close(oracle.visits(world, logits), np.array([1, 3 / 4]))
    close(oracle.return_gradient(world, logits), np.array([[3 / 16, -3 / 16], [9 / 8, -9 / 8]]))
    # gamma 1/2: Q(A, 0) = 1 + 2/2 = 2, as much as Q(A, 1)
    assert oracle.expected_return(world, logits, 0.5) == pytest.approx(2)
    # Q*(A, 0) = 1 + 8
    close(oracle.optimal_values(world)[1], np.array([[9.0, 2], [8, 0]]))
    assert oracle.greedy_row(world, logits).tokens == (0, 0, 1)


def test_two_tokens_divergences_by_hand() -> None:
    """Against the uniform policy: KL = 3/4 log 3/2 + 1/4 log 1/2 in both states, visited 1 + 3/4 times."""
    world, logits = two_tokens()
    uniform = np.zeros((2, 2))
    per_state = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert oracle.row_kl(world, logits, uniform) == pytest.approx(1.75 * per_state)
    assert oracle.token_kl(world, logits, uniform) == pytest.approx(1.75 * per_state)
    backwards = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    assert oracle.token_kl(world, logits, uniform, "reverse") == pytest.approx(1.75 * backwards)
    assert oracle.row_entropy(world, logits) == pytest.approx(1.75 * (np.log(2) - per_state))
    # uniform(row) exp(R): e^9 / 4, e / 4, e^2 / 2
    tilted = np.array([np.e**9 / 4, np.e / 4, np.e**2 / 2])
    close(oracle.soft_optimal(world, uniform, 1.0), tilted / tilted.sum())


def test_two_tokens_advantages_by_hand() -> None:
    """Row 00, both states worth 1, lambda 1/2: deltas 1 + 1 - 1 = 1 and 8 - 1 = 7; A = 1 + 7/2, 7."""
    world, _ = two_tokens()
    close(oracle.gae(world.rows[0], np.ones(2), lam=0.5), np.array([4.5, 7]))
    close(oracle.returns(world.rows[0], 0.5), np.array([5.0, 8]))


# Rows and states


def test_rows_are_all_there_are(world: World, logits: np.ndarray) -> None:
    p = oracle.row_probability(world, logits)
    assert p.sum() == pytest.approx(1, abs=1e-14)
    assert len({row.tokens for row in world.rows}) == len(world.rows)
    for prompt, chance in enumerate(world.prompt_probability):
        assert p[world.answers(prompt)].sum() == pytest.approx(chance, abs=1e-14)


def test_rows_of_one_turn_are_those_that_counting_finds() -> None:
    world = WORLDS["five"]()
    ends = [(0,), *((a, b) for a, b in itertools.product(range(1, 5), range(5)))]
    assert {row.tokens[2:] for row in world.rows} == set(ends)
    assert all(row.ended == (row.tokens[-1] == 0) for row in world.rows)
    assert all(row.done for row in world.rows)


def test_a_state_is_what_was_read_before_the_token(world: World) -> None:
    for row in world.rows:
        contexts = [row.tokens[:t] for t, acts in enumerate(row.action) if acts]
        assert [world.states[state] for state in row.states] == contexts
        np.testing.assert_array_equal(world.reward[row.states, row.chosen], row.earned)
        after = world.next_state[row.states, row.chosen]
        np.testing.assert_array_equal(after, [*row.states[1:], row.final])
        assert row.score == pytest.approx(row.earned.sum())  # observations and prompts earn nothing


def test_truncated_rows_are_those_that_did_not_end() -> None:
    for name in ("truncated", "truncated turns"):
        world = WORLDS[name]()
        assert {row.ended for row in world.rows} == {True, False}
        assert all(row.done == row.ended for row in world.rows)
        left = {row.final for row in world.rows} - {NOWHERE}
        np.testing.assert_array_equal(np.flatnonzero(~world.deciding), sorted(left))
        assert np.abs(world.beyond[sorted(left)]).min() > 0
        assert np.abs(world.beyond[world.deciding]).max() == 0


def test_a_reward_of_rows_stands_on_the_last_action() -> None:
    for name in ("rows", "truncated turns"):
        for row in WORLDS[name]().rows:
            assert not row.earned[:-1].any()
            assert row.earned[-1] != 0


def test_observations_depend_on_what_was_said_and_may_be_the_end_of_text() -> None:
    world = WORLDS["turns"]()
    observed: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for row in world.rows:
        inner = [t for t, acts in enumerate(row.action) if t > 0 and not acts]
        assert len(inner) == 2
        assert row.action[inner[0] - 1]  # both turns have actions
        assert row.action[-1]
        observed.setdefault(row.tokens[: inner[0]], set()).add(row.tokens[inner[0] : inner[-1] + 1])
    assert all(len(answers) == 1 for answers in observed.values())
    assert len(set.union(*observed.values())) > 3
    assert any(world.eos in answer for answers in observed.values() for answer in answers)


def test_a_state_of_two_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match="belongs to two prompts"):
        World(prompts=[(1,), (1, 0)])


# Values


@pytest.mark.parametrize("gamma", [1.0, 0.7, 0.1])
def test_the_gradient_of_the_return_is_its_slope(world: World, logits: np.ndarray, gamma: float) -> None:
    slope = oracle.finite_differences(lambda x: oracle.expected_return(world, x, gamma), logits)
    close(oracle.return_gradient(world, logits, gamma), slope, atol=1e-8)


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_the_policy_gradient_theorem(world: World, logits: np.ndarray, gamma: float) -> None:
    """grad J = sum_s visits(s) gamma^t(s) pi(a | s) A(s, a) [per logit a], Sutton et al. 2000."""
    weight = oracle.visits(world, logits) * gamma ** time_of(world)
    p = np.exp(oracle.log_softmax(logits))
    expected = weight[:, None] * p * oracle.advantages(world, logits, gamma)
    close(oracle.return_gradient(world, logits, gamma), expected)


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_values_satisfy_bellmans_equations(world: World, logits: np.ndarray, gamma: float) -> None:
    v, q = oracle.state_values(world, logits, gamma), oracle.action_values(world, logits, gamma)
    here = world.deciding
    close((np.exp(oracle.log_softmax(logits)) * q).sum(-1)[here], v[here])
    following = np.where(world.next_state == NOWHERE, 0, v[world.next_state])
    close((world.reward + gamma * following)[here], q[here])
    np.testing.assert_array_equal(v[~here], world.beyond[~here])
    starts = [world.index[prompt] for prompt in world.prompts]
    assert world.prompt_probability @ v[starts] == pytest.approx(oracle.expected_return(world, logits, gamma))


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_the_optimal_values_are_the_best_policys(gamma: float) -> None:
    """Of all 2^8 deterministic policies, or nearly so: logits of 40, so that every state is still seen."""
    world = World(vocab_size=2, length=2, turns=2, cut="truncated", seed=7)
    v, q = oracle.optimal_values(world, gamma)
    places = np.flatnonzero(world.deciding)
    assert len(places) == 8
    found = np.full((len(world.states), 2), -np.inf)
    best = -np.inf
    for choice in itertools.product((0, 1), repeat=len(places)):
        logits = np.zeros_like(world.reward)
        logits[places, choice] = 40.0
        best = max(best, oracle.expected_return(world, logits, gamma))
        found = np.maximum(found, oracle.action_values(world, logits, gamma))
    assert best == pytest.approx(v[0])
    close(found[places], q[places])


def test_greedy_rows_follow_the_best_token(world: World, logits: np.ndarray) -> None:
    for prompt in range(len(world.prompts)):
        row = oracle.greedy_row(world, logits, prompt)
        assert row.prompt == prompt
        assert (logits[row.states, row.chosen] == logits[row.states].max(-1)).all()


# Advantages


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_gae_is_a_mixture_of_k_step_advantages(world: World, gamma: float) -> None:
    """(1 - lam) sum_k lam^(k-1) A^(k), the last one with all the weight that is left."""
    values, lam = world.random_values(3), 0.6
    for row in world.rows:
        n = len(row.states)
        after = np.array([*values[row.states[1:]], 0.0 if row.done else values[row.final]])
        expected = np.zeros(n)
        for t in range(n):
            for k in range(1, n - t + 1):
                gain = sum(gamma**j * row.earned[t + j] for j in range(k)) + gamma**k * after[t + k - 1]
                weight = lam ** (k - 1) * (1 if k == n - t else 1 - lam)
                expected[t] += weight * (gain - values[row.states[t]])
        close(oracle.gae(row, values, gamma, lam), expected)


def test_gae_of_lambda_one_is_the_return_less_the_value(world: World) -> None:
    values = world.random_values(3)
    for row in world.rows:
        close(oracle.gae(row, values, 0.7, 1.0), oracle.returns(row, 0.7, values) - values[row.states])


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0])
def test_gae_with_the_right_values_is_the_advantage_on_average(
    world: World, logits: np.ndarray, lam: float
) -> None:
    values = oracle.state_values(world, logits, 0.9)
    total, weight = np.zeros_like(world.reward), np.zeros_like(world.reward)
    for p, row in zip(oracle.row_probability(world, logits), world.rows, strict=True):
        total[row.states, row.chosen] += p * oracle.gae(row, values, 0.9, lam)
        weight[row.states, row.chosen] += p
    here = world.deciding
    close((total[here] / weight[here]), oracle.advantages(world, logits, 0.9)[here])


# Divergences and entropies


def test_divergences_are_positive_and_zero_at_home(
    world: World, logits: np.ndarray, reference: np.ndarray
) -> None:
    for found in (
        oracle.row_kl(world, logits, reference),
        oracle.token_kl(world, logits, reference),
        oracle.token_kl(world, logits, reference, "reverse"),
    ):
        assert found > 0.01
    shifted = logits + world.random_values(5)[:, None]  # the same policy
    assert oracle.row_kl(world, logits, shifted) == pytest.approx(0, abs=1e-14)
    assert oracle.token_kl(world, logits, shifted, "reverse") == pytest.approx(0, abs=1e-14)


def test_the_rows_divergence_is_the_tokens(world: World, logits: np.ndarray, reference: np.ndarray) -> None:
    row = oracle.row_kl(world, logits, reference)
    assert row == pytest.approx(oracle.token_kl(world, logits, reference))
    assert oracle.row_entropy(world, logits) == pytest.approx(oracle.state_entropy(world, logits))


def test_gradients_of_divergences_are_their_slopes(
    world: World, logits: np.ndarray, reference: np.ndarray
) -> None:
    slope = oracle.finite_differences(lambda x: oracle.row_kl(world, x, reference), logits)
    row = oracle.row_kl_gradient(world, logits, reference)
    close(row, slope, atol=1e-8)
    frozen = oracle.visits(world, world.random_logits(seed=13))
    for direction in ("forward", "reverse"):
        for visited in (None, frozen):
            held = oracle.visits(world, logits) if visited is None else visited
            slope = oracle.finite_differences(
                lambda x, d=direction, h=held: oracle.token_kl(world, x, reference, d, h),  # type: ignore[misc]
                logits,
            )
            found = oracle.token_kl_gradient(world, logits, reference, direction, visited)  # type: ignore[arg-type]
            close(found, slope, atol=1e-8)
            assert np.abs(found - row).max() > 1e-3  # holding the visits matters


def test_gradients_of_entropies_are_their_slopes(world: World, logits: np.ndarray) -> None:
    slope = oracle.finite_differences(lambda x: oracle.row_entropy(world, x), logits)
    close(oracle.row_entropy_gradient(world, logits), slope, atol=1e-8)
    held = oracle.visits(world, logits)
    slope = oracle.finite_differences(lambda x: oracle.state_entropy(world, x, held), logits)
    close(oracle.state_entropy_gradient(world, logits), slope, atol=1e-8)


# The leashed optimum


def test_the_soft_optimum_is_one(world: World, logits: np.ndarray, reference: np.ndarray) -> None:
    """There the gradient of E[R] - temperature KL is 0, and no other policy has more of it."""
    temperature = 0.7
    best = oracle.soft_optimal_logits(world, reference, temperature)
    pull = oracle.return_gradient(world, best)
    np.testing.assert_allclose(
        pull, temperature * oracle.row_kl_gradient(world, best, reference), rtol=0, atol=1e-12
    )
    close(oracle.row_probability(world, best), oracle.soft_optimal(world, reference, temperature))

    def objective(policy: np.ndarray) -> float:
        return oracle.expected_return(world, policy) - temperature * oracle.row_kl(world, policy, reference)

    values, _ = oracle.soft_values(world, temperature, prior=reference)
    starts = [world.index[prompt] for prompt in world.prompts]
    assert objective(best) == pytest.approx(world.prompt_probability @ values[starts])
    assert objective(best) > max(objective(logits), objective(reference)) + 1e-3


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_soft_values_are_the_best_of_return_and_entropy(world: World, gamma: float) -> None:
    """V(s) = sum pi (Q - temperature log pi) for pi = softmax(Q / temperature); Q one step before it."""
    temperature = 0.5
    v, q = oracle.soft_values(world, temperature, gamma)
    here = world.deciding
    logp = oracle.log_softmax(q / temperature)
    close((np.exp(logp) * (q - temperature * logp)).sum(-1)[here], v[here])
    following = np.where(world.next_state == NOWHERE, 0, v[world.next_state])
    close((world.reward + gamma * following)[here], q[here])
    cold, _ = oracle.soft_values(world, 1e-4, gamma)
    np.testing.assert_allclose(cold, oracle.optimal_values(world, gamma)[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.7, 0.99])
def test_an_expectile_is_the_minimum_of_the_lopsided_square(level: float) -> None:
    generator = np.random.default_rng(3)
    values, p = generator.normal(size=5), generator.dirichlet(np.ones(5))
    m = oracle.expectile(values, p, level)
    pull = p * np.where(values > m, level, 1 - level) * (values - m)
    assert pull.sum() == pytest.approx(0, abs=1e-14)
    if level == 0.5:
        assert m == pytest.approx(p @ values)
    assert oracle.expectile(np.array([2.0]), np.array([1.0]), level) == 2
