"""Filtered imitation: what is kept of each group, and in which proportions, by enumeration."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune_plugins.algorithms import FilteredImitation, SupervisedTuning


def scored(world: Any, rows: Any, scores: Any, group: Any) -> Experience:
    said = [world.responses[i] for i in rows]
    return from_rows(
        [[1, *r] for r in said], [[False, *[True] * len(r)] for r in said], scores=scores, group=group
    )


def best_of(p: Tensor, rewards: Tensor, n: int) -> Tensor:
    """P(the best of n draws from p is this response), where the first of equals is taken.

    All n are worth at most r with probability F(r)^n, and all less with F(r-)^n. Among equals the first to
    be drawn is one of them as likely as each is.
    """
    at_most = torch.stack([p[rewards <= r].sum() for r in rewards])
    below = torch.stack([p[rewards < r].sum() for r in rewards])
    equals = torch.stack([p[rewards == r].sum() for r in rewards])
    return p / equals * (at_most**n - below**n)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_what_is_kept_is_distributed_as_the_best_of_n(world: Any, n: int, ties: bool) -> None:
    algorithm = FilteredImitation(keep=1)
    policy = world.policy(algorithm)
    p = world.row_logps(policy).detach().exp()
    rewards = world.returns(1.0)
    rewards = rewards.round() if ties else rewards
    assert (len(rewards.unique()) < 7) == ties
    found = torch.zeros(7, dtype=torch.float64)
    draws = list(itertools.product(range(7), repeat=n))
    # All draws at once: each is a group of its own.
    rows = [row for draw in draws for row in draw]
    groups = [number for number in range(len(draws)) for _ in range(n)]
    for start in range(0, len(rows), 343 * n):  # in parts, for the memory
        part = slice(start, start + 343 * n)
        exp, _ = algorithm.prepare(
            scored(world, rows[part], rewards[rows[part]].tolist(), groups[part]), policy
        )
        for place in exp.action.any(-1).nonzero().flatten().tolist():
            first = start + place - place % n
            found[rows[start + place]] += p[rows[first : first + n]].prod()
    torch.testing.assert_close(found, best_of(p, rewards, n), atol=1e-12, rtol=0)


def test_the_mean_gradient_is_the_imitation_of_the_best(world: Any) -> None:
    """Each batch averages over the tokens of the response that it keeps."""
    algorithm = FilteredImitation(keep=1)
    policy = world.policy(algorithm)
    table = policy.backbone.table.weight
    p, rewards = world.row_logps(policy).detach().exp(), world.returns(1.0)
    found = torch.zeros_like(table)
    for draw in itertools.product(range(7), repeat=3):
        ready, _ = algorithm.prepare(scored(world, draw, rewards[list(draw)].tolist(), [0, 0, 0]), policy)
        loss = algorithm.loss(ready, policy)
        found += p[list(draw)].prod() * torch.autograd.grad(loss.sum / loss.denominator, [table])[0]
    lengths = torch.tensor([len(r) for r in world.responses])
    nll = -(best_of(p, rewards, 3) * world.row_logps(policy) / lengths).sum()
    (exact,) = torch.autograd.grad(nll, [table])
    assert exact.abs().max() > 1e-3
    torch.testing.assert_close(found, exact, atol=1e-12, rtol=1e-10)


def times_among_the_best(p: Tensor, rewards: Tensor, n: int, keep: int) -> Tensor:
    """How often, on average, this response is among the best `keep` of n draws from p.

    Draw i is kept if fewer than `keep` of the others come before it. Each of the i earlier draws does with
    the probability of a reward as high or higher, each of the n - 1 - i later ones with that of a higher one.
    """
    found = torch.zeros_like(p)
    for response, reward in enumerate(rewards):
        higher, as_high = float(p[rewards > reward].sum()), float(p[rewards >= reward].sum())
        for i in range(n):
            before = [1.0]  # P(so many come before)
            for chance in [as_high] * i + [higher] * (n - 1 - i):
                stay, more = [b * (1 - chance) for b in before], [b * chance for b in before]
                before = [a + b for a, b in zip([*stay, 0.0], [0.0, *more], strict=True)]
            found[response] += p[response] * sum(before[:keep])
    return found


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "keep"), [(2, 1), (3, 2), (4, 2), (4, 3)])
def test_what_is_kept_is_distributed_as_the_best_k_of_n(world: Any, n: int, keep: int, ties: bool) -> None:
    algorithm = FilteredImitation(keep=keep)
    policy = world.policy(algorithm)
    p, rewards = world.row_logps(policy).detach().exp(), world.returns(1.0)
    rewards = rewards.round() if ties else rewards
    draws = torch.tensor(list(itertools.product(range(7), repeat=n)))
    found = torch.zeros(7, dtype=torch.float64)
    for some in draws.split(343):  # in parts, for the memory; each draw is a group of its own
        rows, groups = some.flatten().tolist(), torch.arange(len(some)).repeat_interleave(n).tolist()
        exp, _ = algorithm.prepare(scored(world, rows, rewards[rows].tolist(), groups), policy)
        best = exp.action.any(-1).view(-1, n)
        assert best.sum(-1).eq(keep).all()
        found.index_add_(0, some[best], p[some].prod(-1)[:, None].expand(-1, n)[best])
    assert float(found.sum()) == pytest.approx(keep, abs=1e-12)
    expected = times_among_the_best(p, rewards, n, keep)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    if keep == 1:
        torch.testing.assert_close(best_of(p, rewards, n), expected, atol=1e-12, rtol=0)


def best_pairs(p: Tensor, rewards: Tensor, n: int) -> Tensor:
    """P(the best of n draws is the row's response and the next the column's) `[7, 7]`; rewards all differ.

    Both are y: none is better, and not only one is y. First a, then a worse b: a is drawn once, and the best
    of the other n - 1 draws is b.
    """
    at_most = torch.stack([p[rewards <= r].sum() for r in rewards])
    below = at_most - p
    found = n * p[:, None] * (at_most ** (n - 1) - below ** (n - 1))[None]
    found = torch.where(rewards[:, None] > rewards[None], found, 0)
    return found + torch.diag(at_most**n - below**n - n * p * below ** (n - 1))


@pytest.mark.parametrize("n", [3, 4])
def test_the_mean_gradient_is_the_imitation_of_the_best_two(world: Any, n: int) -> None:
    """Each batch averages over the tokens of both responses that it keeps."""
    algorithm = FilteredImitation(keep=2)
    policy = world.policy(algorithm)
    table = policy.backbone.table.weight
    p, rewards = world.row_logps(policy).detach().exp(), world.returns(1.0)
    found = torch.zeros_like(table)
    for draw in itertools.combinations_with_replacement(range(7), n):
        orders = math.factorial(n) / math.prod(math.factorial(draw.count(y)) for y in set(draw))
        exp = scored(world, draw, rewards[list(draw)].tolist(), [0] * n)
        ready, _ = algorithm.prepare(exp, policy)
        loss = algorithm.loss(ready, policy)
        (gradient,) = torch.autograd.grad(loss.sum / loss.denominator, [table])
        found += orders * p[list(draw)].prod() * gradient
    pairs = best_pairs(p, rewards, n)
    assert float(pairs.sum()) == pytest.approx(1, abs=1e-12)
    lengths = torch.tensor([len(r) for r in world.responses])
    logp = world.row_logps(policy)
    nll = -(pairs * (logp[:, None] + logp[None]) / (lengths[:, None] + lengths[None])).sum()
    (exact,) = torch.autograd.grad(nll, [table])
    assert exact.abs().max() > 1e-3
    torch.testing.assert_close(found, exact, atol=1e-12, rtol=1e-10)


def kept(world: Any, keep: int, scores: list[float], group: list[int]) -> tuple[list[int], dict[str, float]]:
    algorithm = FilteredImitation(keep=keep)
    exp, metrics = algorithm.prepare(
        scored(world, range(len(scores)), scores, group), world.policy(algorithm)
    )
    return exp.action.any(-1).nonzero().flatten().tolist(), dict(metrics)


def test_what_is_kept_by_hand(world: Any) -> None:
    scores, group = [1.0, 3.0, 3.0, 2.0, 5.0, 4.0], [0, 0, 0, 0, 1, 1]
    assert kept(world, 1, scores, group) == ([1, 4], {"rollout/kept_reward": 4.0})  # the first of two 3s
    assert kept(world, 2, scores, group) == ([1, 2, 4, 5], {"rollout/kept_reward": 3.75})
    assert kept(world, 3, scores, group) == ([1, 2, 3, 4, 5], {"rollout/kept_reward": pytest.approx(3.4)})


@pytest.mark.parametrize("keep", [4, 9])
def test_keeping_all_of_every_group_is_refused(world: Any, keep: int) -> None:
    """Or it would train on everything that was said and look like a filter."""
    with pytest.raises(UserError) as caught:
        kept(world, keep, [1.0, 3.0, 3.0, 2.0, 5.0, 4.0], [0, 0, 0, 0, 1, 1])
    assert str(caught.value) == (
        f"algorithm.keep: {keep} of 4 responses to a prompt is all of them, and nothing is filtered; "
        f"lower it, or set collector.group_size above {keep}"
    )


def test_rows_without_a_score_are_never_kept(world: Any) -> None:
    nan = math.nan
    found, metrics = kept(world, 2, [nan, 1.0, 2.0, nan, -1.0, nan], [0, 0, 0, 1, 1, 2])
    assert found == [1, 2, 4]  # of a group without scores none
    assert metrics == {"rollout/kept_reward": pytest.approx(2 / 3)}
    found, metrics = kept(world, 2, [nan, nan, nan], [0, 0, 0])
    assert found == []
    assert math.isnan(metrics["rollout/kept_reward"])


def prepared(world: Any, order: list[int]) -> tuple[Any, Experience, Any]:
    algorithm = FilteredImitation(keep=2)
    policy = world.policy(algorithm)
    scores = [0.5, 2.0, 1.5, -1.0, 3.0, 2.5]
    exp = scored(world, order, [scores[i] for i in order], [i // 3 for i in order])
    exp, _ = algorithm.prepare(exp, policy)
    return algorithm, exp, policy


def mean_gradient(algorithm: Any, parts: list[Experience], policy: Any) -> Tensor:
    """As the loader has it: all micro-batches are divided by the step's tokens."""
    tokens = float(sum(part.action.sum() for part in parts))
    losses = [algorithm.loss(replace(part, step_tokens=tokens), policy) for part in parts]
    total = torch.stack([loss.sum / loss.denominator for loss in losses]).sum()
    (gradient,) = torch.autograd.grad(total, [policy.backbone.table.weight])
    return gradient


def test_it_is_supervised_tuning_on_the_kept_rows(world: Any) -> None:
    algorithm, exp, policy = prepared(world, [0, 1, 2, 3, 4, 5])
    found = mean_gradient(algorithm, [exp], policy)
    tuning = SupervisedTuning()
    alone = mean_gradient(tuning, [scored(world, [1, 2, 4, 5], None, None)], policy)
    assert found.abs().max() > 1e-3
    torch.testing.assert_close(found, alone, atol=1e-14, rtol=1e-12)


def test_micro_batches_and_the_order_of_rows_change_nothing(world: Any) -> None:
    algorithm, exp, policy = prepared(world, [0, 1, 2, 3, 4, 5])
    whole = mean_gradient(algorithm, [exp], policy)
    for parts in ([[0, 1, 2], [3, 4, 5]], [[0, 3], [5, 4, 1, 2]]):  # the first of these keeps nothing
        pieces = [exp[torch.tensor(part)].trim() for part in parts]
        torch.testing.assert_close(mean_gradient(algorithm, pieces, policy), whole, atol=1e-14, rtol=1e-12)
    _, shuffled, _ = prepared(world, [4, 0, 5, 2, 3, 1])
    torch.testing.assert_close(mean_gradient(algorithm, [shuffled], policy), whole, atol=1e-14, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0}, "algorithm.keep: expected at least 1, got 0"),
        ({"temperature": 0.0}, "algorithm.temperature: expected a number above 0, got 0.0"),
    ],
)
def test_wrong_values_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        FilteredImitation(**options)
    assert str(caught.value) == message
