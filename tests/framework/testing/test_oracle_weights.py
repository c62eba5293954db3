"""The weights of each algorithm: numbers from pencil and paper, slopes of a plain loss, expectations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from feedtune.testing import oracle
from feedtune.testing.oracle import Batch, Row, World

LOW, HIGH, DUAL = 0.2, 0.28, 1.5


def world() -> World:
    """Seven rows of one or two tokens, each with a reward of its own."""
    return World(vocab_size=3, length=2, seed=1)


def two_prompts() -> World:
    """Seven rows a prompt."""
    return World(vocab_size=3, length=2, prompts=[(1,), (2, 0)], seed=8)


def close(found: np.ndarray, expected: np.ndarray, atol: float = 1e-12) -> None:
    assert np.abs(expected).max() > 1e-4  # the comparison says something
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


# Pencil and paper. Prompt 0, token 1 ends a row, at most two tokens; every row is worth what its test says.


def batch_of(
    scores: list[float], lengths: list[int], group: list[int] | None = None, **policies: Any
) -> Batch:
    """Rows of one (token 1) or two tokens (0, then 0), each score on its last token."""
    tree = World(vocab_size=2, length=2, prompts=[(0,)], reward="row")
    rows = []
    for score, length in zip(scores, lengths, strict=True):
        row = next(r for r in tree.rows if r.tokens[1:] == ((1,) if length == 1 else (0, 0)))
        reward = np.zeros(len(row.tokens))
        reward[-1] = score
        rows.append(Row(row.tokens, row.action, reward, row.states, row.final, 0, row.ended))
    start: dict[str, Any] = {"logits": np.zeros((2, 2)), "group": group or [0] * len(rows), **policies}
    return Batch(rows, **start)


def firsts(weights: oracle.Ragged) -> np.ndarray:
    return np.array([row[0] for row in weights])


def test_a_group_of_one_success_in_four_by_hand() -> None:
    """Mean 1/4, Bessel's deviation 1/2: -.5, -.5, -.5, 1.5; without it -.25, .75; leave one out -1/3, 1."""
    batch = batch_of([0, 0, 0, 1], [1, 2, 1, 2])
    rows, tokens = 4, 6
    halves = np.array([-0.5, -0.5, -0.5, 1.5])
    close(firsts(oracle.grpo(batch, eps=0)), halves / rows / [1, 2, 1, 2])
    close(firsts(oracle.dapo(batch, eps=0)), halves / tokens)
    close(firsts(oracle.gspo(batch, eps=0)), halves / rows / [1, 2, 1, 2])
    close(firsts(oracle.cispo(batch, eps=0, cap=5)), halves / tokens)
    quarters = np.array([-0.25, -0.25, -0.25, 0.75])
    close(firsts(oracle.dr_grpo(batch, length=8)), quarters / rows / 8)
    close(firsts(oracle.reinforce(batch, "mean")), quarters / rows)
    thirds = np.array([-1 / 3, -1 / 3, -1 / 3, 1])
    close(firsts(oracle.rloo(batch)), thirds / rows)
    close(firsts(oracle.reinforce(batch, "leave_one_out")), thirds / rows)
    assert [len(row) for row in oracle.grpo(batch)] == [1, 2, 1, 2]


def test_rows_are_compared_with_their_group_only() -> None:
    """Groups (1, 3) and (5, 5): -1, 1 and nothing, over 2 sqrt(2)... the deviation of 1 and 3 is sqrt 2."""
    batch = batch_of([1, 5, 3, 5], [1, 1, 1, 1], group=[7, 9, 7, 9])
    close(firsts(oracle.rloo(batch)), np.array([-2, 0, 2, 0]) / 4)
    close(firsts(oracle.grpo(batch, eps=0)), np.array([-1, 0, 1, 0]) / np.sqrt(2) / 4)
    # The whole batch: mean 3.5
    close(firsts(oracle.reinforce(batch, "mean")), np.array([-2.5, 1.5, -0.5, 1.5]) / 4)
    close(firsts(oracle.reinforce(batch, "mean", grouped=True)), np.array([-1, 0, 1, 0]) / 4)


def test_rows_without_a_score_or_without_actions() -> None:
    """Scores 1, 2, none, and 6 of a row without actions: mean 3, over two rows that learn."""
    batch = batch_of([1, 2, 100, 6], [1, 1, 1, 1])
    rows = [*batch.rows[:2], batch.rows[2].unscored(), batch.rows[3].silent()]
    batch = Batch(rows, batch.logits, group=[0] * 4)
    assert (batch.row_count, batch.token_count) == (2, 2)
    weights = oracle.reinforce(batch, "mean")
    assert [row.tolist() for row in weights] == [[-1.0], [-0.5], [], []]
    weights = oracle.rloo(batch)  # 1 - 8/2, 2 - 7/2
    assert [row.tolist() for row in weights] == [[-1.5], [-0.75], [], []]


def test_equal_scores_give_nothing_whatever_their_rounding() -> None:
    """Three times 0.1 has a mean that is not 0.1, and so a deviation that is not 0."""
    batch = batch_of([0.1, 0.1, 0.1], [1, 2, 1])
    for weights in (oracle.grpo(batch, eps=0), oracle.gspo(batch, eps=0), oracle.cispo(batch, cap=2, eps=0)):
        assert all((row == 0).all() for row in weights)


def test_the_overlong_penalty_joins_before_the_baseline_and_not_before_the_question_of_variance() -> None:
    """Limit 2, cache 1: two tokens cost 1. Scores 3, 3 vary by nothing; 3, 5 become 3 and 4, -+ 1/sqrt 2."""
    equal, different = batch_of([3, 3], [1, 2]), batch_of([3, 5], [1, 2])
    assert not firsts(oracle.dapo(equal, limit=2, cache=1, eps=0)).any()
    found = firsts(oracle.dapo(different, limit=2, cache=1, eps=0))
    close(found, np.array([-0.5, 0.5]) / np.sqrt(0.5) / 3)


def test_whitened_tokens_by_hand() -> None:
    """Scores 0 and 3 on one and two tokens: to go 0, 3, 3; mean 2, deviation sqrt((4 + 1 + 1) / 2)."""
    batch = batch_of([0, 3], [1, 2])
    expected = np.array([-2, 1, 1]) / np.sqrt(3) / 3
    close(np.concatenate(oracle.reinforce_pp(batch)), expected, atol=1e-8)  # 1e-8 beside the deviation
    close(np.concatenate(oracle.ppo(batch, np.zeros(2))), expected, atol=0.03)  # lambda .95 is nearly 1
    close(np.concatenate(oracle.ppo(batch, np.zeros(2), lam=1.0)), expected, atol=1e-8)
    alone = batch_of([3], [1])
    assert oracle.reinforce_pp(alone)[0].tolist() == [0.0]


def test_the_penalty_in_the_reward_by_hand() -> None:
    """Old policy 3/4 for token 0, reference 1/2: a 0 costs beta log 3/2. Row 00 loses it twice, to go."""
    old, uniform = np.log([[3.0, 1.0], [3.0, 1.0]]), np.zeros((2, 2))
    batch = batch_of([5], [2], old=old, reference=uniform)
    cost = 0.1 * np.log(1.5)
    close(oracle.reinforce(batch, beta=0.1)[0], np.array([5 - 2 * cost, 5 - cost]))
    close(oracle.reinforce(batch, beta=0.1, gamma=0.5)[0], np.array([2.5 - 1.5 * cost, 0.5 * (5 - cost)]))
    close(oracle.rloo(batch, beta=0.1)[0], np.full(2, 5 - 2 * cost))
    close(oracle.remax(batch, [4.0], beta=0.1)[0], np.full(2, 1 - 2 * cost))
    close(oracle.remax(batch, [4.0], beta=0.1, credit="to_go")[0], np.array([1 - 2 * cost, 1 - cost]))
    close(oracle.reinforce(batch, beta=0.1, gamma=0.5, credit="row")[0], np.full(2, 2.5 - 1.5 * cost))
    close(oracle.a2c(batch, np.array([1.0, 2.0]), beta=0.1, lam=0)[0], np.array([1 - cost, 3 - cost]))


def test_weights_away_from_the_old_policy_by_hand() -> None:
    """Token 1 has probability 1/2 now, 1/4 before: ratio 2. Above a clip gains stop and losses go on."""
    old = np.log([[3.0, 1.0], [3.0, 1.0]])
    batch = batch_of([0, 2], [1, 1], old=old)
    close(firsts(oracle.dr_grpo(batch, length=1)), np.array([-2, 0]) / 2)  # advantages -1, 1
    close(firsts(oracle.grpo(batch, eps=0)), np.array([-2, 0]) / np.sqrt(2) / 2)
    close(firsts(oracle.gspo(batch, eps=0)), np.array([-2, 0]) / np.sqrt(2) / 2)
    close(firsts(oracle.cispo(batch, cap=1.5, eps=0)), np.array([-1.5, 1.5]) / np.sqrt(2) / 2)
    close(firsts(oracle.rloo(batch)), np.array([-2, 2]) / 2)  # no ratio
    low = batch_of(
        [0, 2], [1, 1], logits=old, old=np.zeros((2, 2))
    )  # ratio 1/2: a loss stops, a gain goes on
    close(firsts(oracle.dr_grpo(low, length=1)), np.array([0, 0.5]) / 2)
    dual = oracle.ppo(batch, np.zeros(2), dual=1.5)  # a loss stops too, beyond ratio 1.5
    assert not firsts(dual).any()
    close(firsts(oracle.ppo(batch, np.zeros(2), dual=2.5)), np.array([-2, 0]) / np.sqrt(2) / 2, atol=1e-8)


# Slopes: the plain loss, written once more as a number, against the weights


def surrogate(ratio: float, a: float, low: float, high: float, dual: float | None = None) -> float:
    paid = min(ratio * a, min(max(ratio, 1 - low), 1 + high) * a)
    return max(paid, dual * a) if dual is not None and a < 0 else paid


def far_apart() -> Batch:
    """Thirteen rows of at most two of four tokens, at ratios on both sides of the clips."""
    tree = World(vocab_size=4, length=2, seed=1)
    old = tree.random_logits(2)
    return Batch(tree.rows, old + tree.random_logits(4, 0.6), old, tree.random_logits(5))


def moved(batch: Batch, logits: np.ndarray) -> Batch:
    return Batch(batch.rows, logits, batch.old, batch.reference)


def unwhitened(batch: Batch) -> oracle.Ragged:
    return [oracle.gae(row, np.zeros(len(batch.logits))) for row in batch.rows]


def token_loss(batch: Batch, advantage: oracle.Ragged, **clip: Any) -> float:
    pairs = zip(np.concatenate(batch.ratio), np.concatenate(advantage), strict=True)
    return -sum(surrogate(r, a, **clip) for r, a in pairs) / batch.token_count


def test_the_batch_is_on_both_sides_of_every_clip() -> None:
    batch = far_apart()
    ratio, advantage = np.concatenate(batch.ratio), np.concatenate(unwhitened(batch))
    for sign in (advantage > 0, advantage < 0):
        assert (ratio[sign] < 1 - LOW).any()
        assert (ratio[sign] > 1 + HIGH).any()
        assert ((ratio[sign] > 1 - LOW) & (ratio[sign] < 1 + HIGH)).any()
    assert (ratio[advantage < 0] > DUAL).any()


@pytest.mark.parametrize("dual", [None, DUAL])
def test_clipped_weights_are_slopes(dual: float | None) -> None:
    batch = far_apart()
    values = np.zeros(len(batch.logits))
    clip: dict[str, Any] = {"low": LOW, "high": HIGH, "dual": dual}
    advantage = unwhitened(batch)
    slope = oracle.finite_differences(lambda x: token_loss(moved(batch, x), advantage, **clip), batch.logits)
    found = batch.loss_gradient(oracle.ppo(batch, values, lam=1.0, whiten=False, **clip))
    close(found, slope, atol=1e-9)


def test_weights_of_a_rows_ratio_are_slopes() -> None:
    batch = far_apart()
    scores = np.array([row.score for row in batch.rows])
    advantage = (scores - scores.mean()) / scores.std(ddof=1)

    def loss(logits: np.ndarray) -> float:
        ratios = [float(np.prod(r) ** (1 / len(r))) for r in moved(batch, logits).ratio]
        paid = [surrogate(r, a, 0.05, 0.1) for r, a in zip(ratios, advantage, strict=True)]
        return -sum(paid) / len(paid)

    found = oracle.gspo(batch, eps=0, low=0.05, high=0.1)
    assert any((row == 0).all() for row in found)
    assert any((row > 0).all() for row in found)
    assert any((row < 0).all() for row in found)
    close(batch.loss_gradient(found), oracle.finite_differences(loss, batch.logits), atol=1e-9)


def divergence(estimator: str, k1: np.ndarray, ratio: np.ndarray) -> float:
    k3 = np.exp(-k1) - 1 + k1
    return float(
        {
            "k2": (k1**2 / 2).sum(),
            "k2_row": k1.sum() ** 2 / 2,
            "k3": k3.sum(),
            "k3_token_ratio": (ratio * k3).sum(),
            "k3_prefix_ratio": (ratio.cumprod() * k3).sum(),
            "k3_row_ratio": ratio.prod() * k3.sum(),
        }[estimator]
    )


ESTIMATORS = ["k2", "k2_row", "k3", "k3_token_ratio", "k3_prefix_ratio", "k3_row_ratio"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_weights_of_a_penalty_in_the_loss_are_slopes(estimator: Any) -> None:
    batch = far_apart()

    def loss(logits: np.ndarray) -> float:
        there = moved(batch, logits)
        rows = zip(there.logp, there.ref_logp, there.ratio, strict=True)
        return 0.3 * sum(divergence(estimator, new - ref, ratio) for new, ref, ratio in rows)

    found = batch.loss_gradient(oracle.kl_in_loss(batch, estimator, 0.3))
    close(found, oracle.finite_differences(loss, batch.logits), atol=1e-8)


# Expectations


def expected(
    tree: World, size: int, weights: Callable[[Batch], oracle.Ragged], prompts: list[int] | None = None
) -> np.ndarray:
    old, reference = tree.random_logits(2), tree.random_logits(4)

    def gradient(numbers: tuple[int, ...]) -> np.ndarray:
        batch = Batch([tree.rows[i] for i in numbers], old, reference=reference)
        return batch.loss_gradient(weights(batch))

    return oracle.expected_gradient(tree, old, size, gradient, prompts)


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_baselines_that_do_not_see_the_row_leave_the_gradient_of_the_return(gamma: float) -> None:
    tree = world()
    exact = -oracle.return_gradient(tree, tree.random_logits(2), gamma)
    values = tree.random_values(5)
    for size, options in (
        (2, {"baseline": "none"}),
        (1, {"baseline": "running", "running": 1.7}),
        (1, {"baseline": "value", "values": values}),
        (3, {"baseline": "leave_one_out"}),
    ):
        close(expected(tree, size, lambda b, o=options: oracle.reinforce(b, gamma=gamma, **o)), exact)  # type: ignore
    for credit in ("row", "to_go"):
        found = expected(tree, 1, lambda b, c=credit: oracle.remax(b, [0.4], gamma=gamma, credit=c))  # type: ignore
        close(found, exact)


@pytest.mark.parametrize("gamma", [1.0, 0.7])
@pytest.mark.parametrize("size", [2, 3])
def test_the_mean_baseline_takes_its_share(gamma: float, size: int) -> None:
    """1/n of it, which at token t, where the row's whole return counts gamma^t again, is gamma^t / n."""
    tree = world()
    exact = -oracle.return_gradient(tree, tree.random_logits(2), gamma)
    share = np.array([1, gamma, gamma])[:, None] / size  # nothing said yet, 0, 1
    assert [len(state) for state in tree.states] == [1, 2, 2]
    mean = expected(tree, size, lambda b: oracle.reinforce(b, "mean", gamma=gamma))
    close(mean, (1 - share) * exact)
    whole = expected(tree, size, lambda b: oracle.reinforce(b, "mean", gamma=gamma, credit="row"))
    close(whole, (1 - 1 / size) * exact)


def test_the_entropy_of_a_batch_has_its_slope() -> None:
    batch = far_apart()
    weights = [np.arange(1.0, 1 + len(row.states)) for row in batch.rows]

    def entropy(logits: np.ndarray) -> float:
        logp = oracle.log_softmax(logits)
        per_state = -(np.exp(logp) * logp).sum(-1)
        return float(sum(w @ per_state[row.states] for w, row in zip(weights, batch.rows, strict=True)))

    close(batch.entropy_gradient(weights), oracle.finite_differences(entropy, batch.logits), atol=1e-8)


def test_the_penalty_in_the_reward_is_the_rows_divergence() -> None:
    tree = world()
    old, reference = tree.random_logits(2), tree.random_logits(4)
    exact = 0.3 * oracle.row_kl_gradient(tree, old, reference) - oracle.return_gradient(tree, old)
    close(expected(tree, 1, lambda b: oracle.reinforce(b, beta=0.3)), exact)
    close(expected(tree, 2, lambda b: oracle.rloo(b, beta=0.3)), exact)
    values = tree.random_values(5)
    close(expected(tree, 1, lambda b: oracle.a2c(b, values, beta=0.3)), exact)


def test_the_penalty_in_the_loss_is_the_stated_divergence() -> None:
    tree = world()
    old, reference = tree.random_logits(2), tree.random_logits(4)
    for estimator, exact in {
        "k2": oracle.token_kl_gradient(tree, old, reference),
        "k3_token_ratio": oracle.token_kl_gradient(tree, old, reference),
        "k3": oracle.token_kl_gradient(tree, old, reference, "reverse"),
        "k2_row": oracle.row_kl_gradient(tree, old, reference),
        "k3_prefix_ratio": oracle.row_kl_gradient(tree, old, reference),
        "k3_row_ratio": oracle.row_kl_gradient(tree, old, reference),
    }.items():
        found = expected(tree, 1, lambda b, e=estimator: oracle.kl_in_loss(b, e, 0.3))  # type: ignore[misc, arg-type]
        close(found, 0.3 * exact)


def test_actor_critic_is_exact_with_right_values_or_lambda_one() -> None:
    for tree in (world(), World(vocab_size=2, length=2, turns=2, cut="truncated", seed=9)):
        old = tree.random_logits(2)
        exact = -oracle.return_gradient(tree, old)
        right, wrong = oracle.state_values(tree, old), tree.random_values(5)
        wrong[~tree.deciding] = tree.beyond[~tree.deciding]  # where a row was cut, only the truth is right
        close(expected(tree, 1, lambda b, v=right: oracle.a2c(b, v, lam=0.3)), exact)  # type: ignore[misc]
        close(expected(tree, 1, lambda b, v=wrong: oracle.a2c(b, v, lam=1.0)), exact)  # type: ignore[misc]
        biased = expected(tree, 1, lambda b, v=wrong: oracle.a2c(b, v, lam=0.3))  # type: ignore[misc]
        assert np.abs(biased - exact).max() > 1e-2


def test_groups_of_two_prompts() -> None:
    """Both prompts get two rows: the mean of their gradients, prompts being equally likely."""
    tree = two_prompts()
    exact = -oracle.return_gradient(tree, tree.random_logits(2))
    close(expected(tree, 4, oracle.rloo, prompts=[0, 1, 0, 1]), exact)
    close(expected(tree, 4, lambda b: oracle.dr_grpo(b, length=3.0), [0, 0, 1, 1]), exact / 2 / 3)


def test_batches_that_a_condition_leaves_out() -> None:
    """Given that two rows differ, the mean is over those alone: rows 0 and 1 of three, in either order."""
    tree = World(vocab_size=2, length=2, prompts=[(0,)], seed=1)
    old = np.log([[3.0, 1.0], [1.0, 3.0]])  # 3/16, 9/16, 4/16 as in test_oracle
    ones = np.ones_like(old)
    found = oracle.expected_gradient(
        tree, old, 2, lambda batch: ones * (0 in batch), given=lambda batch: batch[0] != batch[1]
    )
    different = 1 - (9 + 81 + 16) / 256
    close(found, ones * (2 * 3 / 16 * 13 / 16) / different)


def test_multisets_stand_for_tuples() -> None:
    tree = world()
    p = oracle.row_probability(tree, tree.random_logits(2))
    total = sum(orders * np.prod(p[list(chosen)]) for chosen, orders in oracle.multisets(range(7), 4))
    assert total == pytest.approx(1, abs=1e-13)
