"""Every policy-gradient card against the oracle, for each batch there is, at the old policy and away from it.

Autograd's gradient of the loss has to be -sum_it w_it grad log pi_it with the weights w of
`feedtune.testing.oracle`, which knows nothing of this code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from card_proofs import (
    BETA,
    CARDS,
    LEASHED,
    NO_KL,
    Autograd,
    Laboratory,
    batches,
    build_card,
    close,
    leashed,
    one_prompt,
    per_row,
    truncated,
    turns,
    two_prompts,
)
from feedtune.testing import oracle


def compare(lab: Laboratory, name: str, beta: float, size: int, logits: np.ndarray, *more: str) -> float:
    """Autograd against the oracle over all batches; returns the largest gradient, which must not be 0."""
    card = CARDS[name]
    autograd = Autograd(lab, card.build(name, beta, *more))
    largest = 0.0
    for numbers, _ in batches(lab, size):
        batch = lab.batch(numbers, logits)
        expected = batch.loss_gradient(card.weights(lab, batch, beta))
        close(autograd.gradient(batch), expected)
        largest = max(largest, float(np.abs(expected).max()))
    return largest


@pytest.mark.parametrize(("name", "beta"), LEASHED)
def test_every_batch_at_the_old_policy(name: str, beta: float) -> None:
    lab = one_prompt()
    assert compare(lab, name, beta, 3 if beta else 4, lab.old) > 1e-2


@pytest.mark.parametrize(("name", "beta"), LEASHED)
def test_every_batch_away_from_the_old_policy(name: str, beta: float) -> None:
    lab = per_row()
    assert compare(lab, name, beta, 3, lab.theta) > 1e-2


@pytest.mark.parametrize("name", CARDS)
def test_every_batch_of_two_groups(name: str) -> None:
    lab = two_prompts()
    assert compare(lab, name, 0.0, 2, lab.theta) > 1e-2
    assert compare(lab, name, 0.0, 1, lab.theta) > 1e-2 or name in (
        "grpo",
        "dr_grpo",
        "dapo",
        "gspo",
        "cispo",
    )


@pytest.mark.parametrize(("name", "beta"), LEASHED)
def test_every_batch_of_rows_with_observations(name: str, beta: float) -> None:
    lab = turns()
    assert compare(lab, name, beta, 2, lab.theta) > 1e-2


@pytest.mark.parametrize("name", CARDS)
def test_every_batch_of_truncated_rows(name: str) -> None:
    lab = truncated()
    assert compare(lab, name, 0.0, 2, lab.theta) > 1e-2


@pytest.mark.parametrize(("name", "beta"), LEASHED)
def test_a_temperature_is_a_division_everywhere(name: str, beta: float) -> None:
    lab = one_prompt()
    assert compare(lab, name, beta, 2, lab.theta, "algorithm.temperature=0.7") > 1e-2


@pytest.mark.parametrize(("name", "beta"), LEASHED)
def test_rows_without_a_score_or_without_actions(name: str, beta: float) -> None:
    """Beside every pair: a row with no opinion, which counts nowhere, and one of a prompt and a score."""
    lab, card = one_prompt(), CARDS[name]
    autograd = Autograd(lab, card.build(name, beta))
    for numbers, _ in batches(lab, 2):
        pair = lab.batch(numbers, lab.theta)
        nothing, silent = lab.world.rows[2].unscored(), lab.world.rows[5].silent()
        batch = replace(pair, rows=[nothing, pair.rows[0], silent, pair.rows[1]])
        close(autograd.gradient(batch), batch.loss_gradient(card.weights(lab, batch, beta)))
        with_nothing = replace(pair, rows=[pair.rows[0], nothing, pair.rows[1]])
        close(autograd.gradient(with_nothing), autograd.gradient(pair))


# Both sides of every clip and cap


def sides(lab: Laboratory, name: str, size: int) -> set[tuple[str, str]]:
    """Which ratios met which sign of advantage, over all batches of the proof above."""
    card = CARDS[name]
    low, high = (1 - card.clip[0], 1 + card.clip[1]) if card.clip else (0.0, card.cap or np.inf)
    found = set()
    for numbers, _ in batches(lab, size):
        batch = lab.batch(numbers, lab.theta)
        advantage = card.weights(lab, lab.batch(numbers), 0.0)  # at ratio 1 weights have its sign
        ratios = batch.ratio
        if name == "gspo":
            ratios = [np.full(len(r), r.prod() ** (1 / len(r))) for r in ratios]
        for ratio, gain in zip(np.concatenate(ratios), np.concatenate(advantage), strict=True):
            place = "below" if ratio < low else "above" if ratio > high else "inside"
            found.add((place, "gain" if gain > 0 else "loss" if gain < 0 else "none"))
    return found


@pytest.mark.parametrize("name", [name for name, card in CARDS.items() if card.clip or card.cap])
def test_the_proofs_cross_every_clip_and_cap(name: str) -> None:
    places = ["above", "below"] if CARDS[name].clip else ["above"]
    places += [] if name == "gspo" else ["inside"]  # within .0004 of 1 there is none; see below
    assert {(place, sign) for place in places for sign in ("gain", "loss")} <= sides(per_row(), name, 3)


@pytest.mark.parametrize("dual", [1.5, 2.5])
def test_a_dual_clip_ends_a_loss(dual: float) -> None:
    lab = one_prompt()
    override = f"algorithm.surrogate.dual={dual}"
    autograd = Autograd(lab, build_card("ppo", (*NO_KL, override)))
    changed = 0
    for numbers, _ in batches(lab, 3):
        batch = lab.batch(numbers, lab.theta)
        expected = batch.loss_gradient(oracle.ppo(batch, lab.values, dual=dual))
        close(autograd.gradient(batch), expected)
        changed += bool(np.abs(expected - batch.loss_gradient(oracle.ppo(batch, lab.values))).max() > 1e-3)
    assert changed > 5


def test_a_rows_ratio_inside_wider_bounds() -> None:
    """GSPO's own bounds leave none inside them here."""
    lab = per_row()
    wide = ("algorithm.surrogate.low=0.3", "algorithm.surrogate.high=0.4")
    autograd = Autograd(lab, build_card("gspo", (*NO_KL, *wide)))
    seen = set()
    for numbers, _ in batches(lab, 3):
        batch = lab.batch(numbers, lab.theta)
        weights = oracle.gspo(batch, eps=1e-4, low=0.3, high=0.4)
        close(autograd.gradient(batch), batch.loss_gradient(weights))
        seen |= set(np.sign(np.concatenate(weights)))
    assert seen == {-1.0, 0.0, 1.0}


# The penalty in the loss, and the entropy bonus


@pytest.mark.parametrize("estimator", ["k2", "k2_row", "k3", "k3_token_ratio", "k3_prefix_ratio"])
@pytest.mark.parametrize("make", [one_prompt, turns])
def test_every_estimator_in_the_loss_for_every_batch(make: Callable[[], Laboratory], estimator: Any) -> None:
    lab = make()
    autograd = Autograd(lab, leashed(estimator))
    for numbers, _ in batches(lab, 2):
        for logits in (lab.old, lab.theta):
            batch = lab.batch(numbers, logits)
            penalty = oracle.kl_in_loss(batch, estimator, BETA)
            summed = [w + k / 2 for w, k in zip(oracle.reinforce(batch), penalty, strict=True)]  # two rows
            close(autograd.gradient(batch), batch.loss_gradient(summed))


def test_the_entropy_bonus_of_the_actor_critics_card() -> None:
    """.001 times the entropy of every visited state, averaged over tokens as the loss is."""
    lab, weights = one_prompt(), CARDS["a2c"].weights
    for coefficient, override in ((0.001, ()), (0.5, ("algorithm.entropy=0.5",))):
        autograd = Autograd(lab, build_card("a2c", (*NO_KL, *override)))
        for numbers, _ in batches(lab, 2):
            batch = lab.batch(numbers, lab.theta)
            share = [np.full(len(row.states), coefficient / batch.token_count) for row in batch.rows]
            expected = batch.loss_gradient(weights(lab, batch, 0.0)) - batch.entropy_gradient(share)
            close(autograd.gradient(batch), expected)
