"""Laws of all losses of preferences: which rows are pairs, and what changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from compared_pairs import EVERY_LOSS
from feedtune.contracts import Algorithm
from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune_plugins.algorithms import DirectPreference, RewardModelling

ALGORITHMS: dict[str, Callable[[], Algorithm]] = {
    **{kind: lambda kind=kind: DirectPreference(loss=kind, beta=0.7) for kind in EVERY_LOSS},  # type: ignore[misc]
    "reward_model": lambda: RewardModelling(margin=0.3, centering=0.2),
}
ROWS, GROUP = [1, 5, 3, 0, 6, 2, 4, 4], [0, 0, 1, 1, 2, 2, 3, 3]
SCORES = [1.0, 0.0, 0.5, 2.5, 3.0, 3.0, 1.0, 0.0]  # the third pair is a tie; the fourth says the same twice
LEFT = [0, 1, 2, 3, 6, 7]  # rows of pairs that count


def batch(world: Any, rows: Sequence[int] = range(8), scores: Sequence[float] = SCORES) -> Experience:
    said = [world.responses[ROWS[i]] for i in rows]
    return from_rows(
        [[1, *r] for r in said],
        [[False, *[True] * len(r)] for r in said],
        scores=[scores[i] for i in rows],
        group=[GROUP[i] for i in rows],
    )


class Found:
    """What an algorithm makes of a batch: mean loss, its gradient, metrics."""

    def __init__(
        self,
        world: Any,
        make: Callable[[], Algorithm],
        exp: Experience,
        change: Callable[[Experience], Experience] = lambda exp: exp,
        parts: Sequence[Sequence[int]] | None = None,
    ) -> None:
        algorithm = make()
        policy = world.policy(algorithm)
        exp = change(world.complete(exp, algorithm, policy))
        exp, self.metrics = algorithm.prepare(exp, policy)
        batches = [exp]
        if parts is not None:  # as the loader cuts an optimiser step into micro-batches
            rows = float(exp.action.any(-1).sum())
            batches = [replace(exp[torch.tensor(part)].trim(), step_rows=rows) for part in parts]
        losses = [algorithm.loss(one, policy) for one in batches]
        self.loss = torch.stack([loss.sum / loss.denominator for loss in losses]).sum()
        trained = list(policy.parameters())
        grads = torch.autograd.grad(self.loss, trained, allow_unused=True)
        self.gradient = torch.cat([g.flatten() for g in grads if g is not None])
        self.metrics |= losses[0].metrics

    def same_as(self, other: Found) -> None:
        assert self.gradient.abs().max() > 1e-3
        torch.testing.assert_close(self.loss, other.loss, atol=1e-13, rtol=1e-12)
        torch.testing.assert_close(self.gradient, other.gradient, atol=1e-13, rtol=1e-12)


every_algorithm = pytest.mark.parametrize("make", ALGORITHMS.values(), ids=ALGORITHMS.keys())


@every_algorithm
def test_ties_are_no_pairs(world: Any, make: Callable[[], Algorithm]) -> None:
    whole, without = Found(world, make, batch(world)), Found(world, make, batch(world, LEFT))
    whole.same_as(without)
    assert (whole.metrics["rollout/dropped_pairs"], without.metrics["rollout/dropped_pairs"]) == (0.25, 0.0)


@every_algorithm
@pytest.mark.parametrize("unscored", [[2], [3], [2, 3]])
def test_a_pair_with_an_unscored_row_is_no_pair(
    world: Any, make: Callable[[], Algorithm], unscored: list[int]
) -> None:
    scores = [math.nan if i in unscored else score for i, score in enumerate(SCORES)]
    found = Found(world, make, batch(world, scores=scores))
    found.same_as(Found(world, make, batch(world, [0, 1, 6, 7])))
    assert found.metrics["rollout/dropped_pairs"] == 0.5


@every_algorithm
def test_a_pair_with_an_empty_response_is_no_pair(world: Any, make: Callable[[], Algorithm]) -> None:
    """Nothing was said that could be raised or lowered."""

    def silenced(exp: Experience) -> Experience:
        action = exp.action.clone()
        action[3] = False
        return replace(exp, action=action)

    found = Found(world, make, batch(world), silenced)
    found.same_as(Found(world, make, batch(world, [0, 1, 6, 7])))


@every_algorithm
def test_the_order_of_pairs_and_of_rows_within_them_changes_nothing(
    world: Any, make: Callable[[], Algorithm]
) -> None:
    whole = Found(world, make, batch(world))
    for order in ([1, 0, 3, 2, 5, 4, 7, 6], [6, 7, 2, 3, 0, 1, 4, 5], [7, 2, 0, 5, 3, 6, 4, 1]):
        Found(world, make, batch(world, order)).same_as(whole)


@every_algorithm
def test_pads_change_nothing(world: Any, make: Callable[[], Algorithm]) -> None:
    """More of them on either side, of whatever token."""

    def padded(exp: Experience) -> Experience:
        wide = exp.padded(2, 3)
        return replace(wide, tokens=torch.where(wide.mask, wide.tokens, 2))

    Found(world, make, batch(world), padded).same_as(Found(world, make, batch(world)))


@every_algorithm
def test_micro_batches_add_up(world: Any, make: Callable[[], Algorithm]) -> None:
    """Also where one of them is nothing but a tie."""
    whole = Found(world, make, batch(world))
    for parts in ([[0, 1, 2, 3], [4, 5, 6, 7]], [[6, 7], [4, 5], [0, 1, 2, 3]], [[2, 3], [0, 1, 4, 5, 6, 7]]):
        Found(world, make, batch(world), parts=parts).same_as(whole)


@every_algorithm
def test_a_minibatch_of_ties_alone_teaches_nothing(world: Any, make: Callable[[], Algorithm]) -> None:
    found = Found(world, make, batch(world, [4, 5]))
    assert found.loss.item() == 0.0
    assert not found.gradient.any()
    assert found.metrics == {"rollout/dropped_pairs": 1.0}  # no mean of nothing


@every_algorithm
def test_groups_that_are_no_pairs_are_refused_by_name(world: Any, make: Callable[[], Algorithm]) -> None:
    exp = replace(batch(world), group=torch.tensor([0, 0, 0, 1, 1, 1, 2, 2]))
    algorithm = make()
    with pytest.raises(UserError, match=r"groups of two rows, but group 0 has 3 rows.*group_size=2"):
        algorithm.prepare(exp, world.policy(algorithm))


@pytest.mark.parametrize("kind", EVERY_LOSS)
def test_only_the_difference_to_the_reference_counts(world: Any, kind: Any) -> None:
    """A reference that finds both responses likelier by the same factor changes nothing."""

    def shifted(exp: Experience) -> Experience:
        assert exp.ref_logp is not None
        return replace(exp, ref_logp=exp.ref_logp + 0.5 * exp.last)

    make = ALGORITHMS[kind]
    Found(world, make, batch(world), shifted).same_as(Found(world, make, batch(world)))
