"""The mean gradient of every policy-gradient card over all batches, against what the card says it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from card_proofs import (
    BETA,
    CARDS,
    LENGTH,
    NO_KL,
    Autograd,
    Laboratory,
    build_card,
    close,
    leashed,
    mean_gradient,
    one_prompt,
    per_row,
    truncated,
    turns,
    two_prompts,
)
from feedtune.testing import oracle
from feedtune.testing.oracle import Batch
from feedtune_plugins.algorithms import MonteCarlo


def minus_true_gradient(lab: Laboratory, beta: float = 0.0, gamma: float = 1.0) -> np.ndarray:
    exact = beta * oracle.row_kl_gradient(lab.world, lab.old, lab.reference)
    exact = exact - oracle.return_gradient(lab.world, lab.old, gamma)
    assert np.abs(exact).max() > 1e-2
    return exact


EXACT: dict[str, tuple[str, tuple[str, ...], int]] = {
    "reinforce none": ("reinforce", ("algorithm.advantage.baseline=none",), 1),
    "reinforce leave one out": ("reinforce", (), 3),
    "reinforce leave one out, row": ("reinforce", ("algorithm.advantage.credit=row",), 2),
    "reinforce value": ("reinforce", ("algorithm.advantage.baseline=value",), 1),
    "reinforce greedy, to go": ("remax", ("algorithm.advantage.credit=to_go",), 1),
    "remax": ("remax", (), 1),
    "remax of two": ("remax", (), 2),
    "rloo of two": ("rloo", (), 2),
    "rloo of four": ("rloo", (), 4),
}


@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("key", EXACT)
def test_the_mean_is_the_true_gradient(key: str, beta: float) -> None:
    """Of the expected return, less beta times the row's KL(policy, reference)."""
    name, overrides, size = EXACT[key]
    lab = one_prompt()
    autograd = Autograd(lab, CARDS[name].build(name, beta, *overrides))
    close(mean_gradient(lab, autograd.gradient, size), minus_true_gradient(lab, beta), atol=1e-9)


@pytest.mark.parametrize("gamma", [0.9, 0.5])
@pytest.mark.parametrize(
    "key", ["reinforce none", "reinforce leave one out", "reinforce value", "rloo of two"]
)
def test_the_mean_is_the_true_gradient_of_the_discounted_return(key: str, gamma: float) -> None:
    name, overrides, size = EXACT[key]
    lab = one_prompt()
    card = CARDS[name].build(name, 0.0, *overrides, f"algorithm.advantage.gamma={gamma}")
    close(
        mean_gradient(lab, Autograd(lab, card).gradient, size),
        minus_true_gradient(lab, gamma=gamma),
        atol=1e-9,
    )


@pytest.mark.parametrize("key", ["reinforce none", "reinforce leave one out", "rloo of two", "remax"])
def test_the_mean_is_the_true_gradient_with_observations_and_with_several_prompts(key: str) -> None:
    name, overrides, size = EXACT[key]
    for lab in (turns(), two_prompts()):
        autograd = Autograd(lab, CARDS[name].build(name, 0.0, *overrides))
        close(mean_gradient(lab, autograd.gradient, min(size, 2)), minus_true_gradient(lab), atol=1e-9)


def test_a_value_baseline_goes_on_where_a_row_was_cut() -> None:
    """Its return then ends with the value of the state it was left in; here that one value is right."""
    lab = truncated()
    lab.values = np.where(lab.world.deciding, lab.values, lab.world.beyond)
    algorithm = CARDS["reinforce"].build("reinforce", 0.0, "algorithm.advantage.baseline=value")
    close(mean_gradient(lab, Autograd(lab, algorithm).gradient, 1), minus_true_gradient(lab), atol=1e-9)


def test_a_running_baseline_leaves_the_true_gradient() -> None:
    """Whatever it remembers, it does not know the row; it learns from every batch, and here is put back."""
    lab = one_prompt()
    algorithm = CARDS["reinforce"].build("reinforce", 0.0, "algorithm.advantage.baseline=running")
    autograd, estimator = Autograd(lab, algorithm), algorithm.advantage
    assert isinstance(estimator, MonteCarlo)

    def gradient(batch: Batch) -> np.ndarray:
        estimator.running.fill_(1.7)
        estimator.rollouts.fill_(3)
        found = autograd.gradient(batch)
        close(found, batch.loss_gradient(oracle.reinforce(batch, "running", running=1.7)))
        assert estimator.running.item() != 1.7
        return found

    close(mean_gradient(lab, gradient, 2), minus_true_gradient(lab), atol=1e-9)


@pytest.mark.parametrize("size", [2, 3])
def test_a_mean_baseline_takes_its_share(size: int) -> None:
    """(1 - 1/n); with a discount, credit to_go loses gamma^t / n at token t, credit row 1/n everywhere."""
    lab = one_prompt()
    for credit, gamma in (("to_go", 1.0), ("row", 1.0), ("to_go", 0.7), ("row", 0.7)):
        options = ("baseline=mean", f"credit={credit}", f"gamma={gamma}")
        overrides = [f"algorithm.advantage.{option}" for option in options]
        autograd = Autograd(lab, CARDS["reinforce"].build("reinforce", 0.0, *overrides))
        t = np.array([[len(state) - 1] for state in lab.world.states])  # tokens said before
        share = (gamma**t if credit == "to_go" else 1.0) / size
        expected = (1 - share) * minus_true_gradient(lab, gamma=gamma)
        close(mean_gradient(lab, autograd.gradient, size), expected, atol=1e-9)


@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("make", [one_prompt, turns, truncated])
def test_an_actor_critic_is_exact_at_lambda_one_or_with_the_right_values(
    make: Callable[[], Laboratory], beta: float
) -> None:
    """A2C's card averages tokens; summed over rows it is the true gradient. Wrong critics bias lambda .3."""
    lab = make()
    right = oracle.state_values(lab.world, lab.old)
    if beta:  # the right values are those of the rewards that were paid, KL included
        p = np.exp(oracle.log_softmax(lab.old))
        gap = oracle.log_softmax(lab.old) - oracle.log_softmax(lab.reference)
        for state in reversed(np.flatnonzero(lab.world.deciding)):
            following = lab.world.next_state[state]
            later = np.where(following == oracle.NOWHERE, 0, right[following])
            right[state] = p[state] @ (lab.world.reward[state] - beta * gap[state] + later)
    wrong = np.where(lab.world.deciding, lab.values, right)
    found = {}
    for lam, values in ((1.0, "wrong"), (0.3, "right"), (0.3, "wrong")):
        overrides = ("algorithm.aggregation=row_sum", f"algorithm.advantage.lam={lam}")
        lab.values = right if values == "right" else wrong
        autograd = Autograd(lab, CARDS["a2c"].build("a2c", beta, *overrides))
        found[lam, values] = mean_gradient(lab, autograd.gradient, 1)
    exact = minus_true_gradient(lab, beta)
    close(found[1.0, "wrong"], exact, atol=1e-9)
    close(found[0.3, "right"], exact, atol=1e-9)
    assert np.abs(found[0.3, "wrong"] - exact).max() > 1e-2


@pytest.mark.parametrize("size", [2, 4])
def test_dr_grpo_is_its_share_of_the_true_gradient_over_the_constant(size: int) -> None:
    lab = one_prompt()
    found = mean_gradient(lab, Autograd(lab, CARDS["dr_grpo"].build("dr_grpo", 0.0)).gradient, size)
    close(found, (1 - 1 / size) / LENGTH * minus_true_gradient(lab), atol=1e-9)


def varied(batch: Batch) -> bool:
    """Whether the raw scores of all groups differ."""
    scores: dict[int, set[float]] = {}
    for row, group in zip(batch.rows, batch.groups, strict=True):
        scores.setdefault(group, set()).add(row.score)
    return all(len(found) > 1 for found in scores.values())


def test_dapo_given_that_every_group_varies() -> None:
    """What refilling gives: the mean over the groups that are left, each with its own statistics."""
    lab = per_row()
    card = CARDS["dapo"]
    found = mean_gradient(lab, Autograd(lab, card.build("dapo", 0.0)).gradient, 3, varied)

    def exact(numbers: tuple[int, ...]) -> np.ndarray:
        batch = lab.batch(numbers)
        return batch.loss_gradient(card.weights(lab, batch, 0.0))

    expected = oracle.expected_gradient(
        lab.world, lab.old, 3, exact, given=lambda numbers: varied(lab.batch(numbers))
    )
    assert np.abs(expected).max() > 1e-2
    close(found, expected, atol=1e-9)
    anyway = oracle.expected_gradient(lab.world, lab.old, 3, exact)
    assert np.abs(anyway - expected).max() > 1e-3


@pytest.mark.parametrize("name", ["grpo", "gspo", "cispo", "ppo", "reinforce_pp"])
def test_the_mean_is_the_stated_sum_over_tuples(name: str) -> None:
    """Every ordered tuple counts with its own statistics and token count, here over all 7^3 of them."""
    lab, card = one_prompt(), CARDS[name]
    found = mean_gradient(lab, Autograd(lab, card.build(name, 0.0)).gradient, 3)

    def exact(numbers: tuple[int, ...]) -> np.ndarray:
        batch = lab.batch(numbers)
        return batch.loss_gradient(card.weights(lab, batch, 0.0))

    expected = oracle.expected_gradient(lab.world, lab.old, 3, exact)
    assert np.abs(expected).max() > 1e-2
    close(found, expected, atol=1e-9)


# The penalty in the loss


def penalty_alone(lab: Laboratory, estimator: str, logits: np.ndarray) -> np.ndarray:
    """The mean gradient that the penalty adds, over all rows."""
    without = Autograd(lab, build_card("reinforce", ("algorithm.advantage.baseline=none", *NO_KL)))
    difference = mean_gradient(lab, Autograd(lab, leashed(estimator)).gradient, 1, logits=logits)
    return difference - mean_gradient(lab, without.gradient, 1, logits=logits)


@pytest.mark.parametrize("make", [one_prompt, turns])
def test_every_estimator_in_the_loss_is_the_stated_divergence(make: Callable[[], Laboratory]) -> None:
    lab = make()
    world, old, reference = lab.world, lab.old, lab.reference
    row = oracle.row_kl_gradient(world, old, reference)
    forward = oracle.token_kl_gradient(world, old, reference)
    reverse = oracle.token_kl_gradient(world, old, reference, "reverse")
    assert np.abs(row - forward).max() > 1e-2
    assert np.abs(forward - reverse).max() > 1e-2
    close(penalty_alone(lab, "k2", old), BETA * forward, atol=1e-9)
    close(penalty_alone(lab, "k3_token_ratio", old), BETA * forward, atol=1e-9)
    close(penalty_alone(lab, "k3", old), BETA * reverse, atol=1e-9)
    close(penalty_alone(lab, "k2_row", old), BETA * row, atol=1e-9)
    close(penalty_alone(lab, "k3_prefix_ratio", old), BETA * row, atol=1e-9)


@pytest.mark.parametrize("make", [one_prompt, turns])
def test_ratios_keep_two_estimators_right_when_the_policy_has_moved(make: Callable[[], Laboratory]) -> None:
    """Rows are the old policy's: a token's ratio keeps its visits, a prefix's makes them the new ones."""
    lab = make()
    world, theta, reference = lab.world, lab.theta, lab.reference
    seen = oracle.visits(world, lab.old)
    forward = oracle.token_kl_gradient(world, theta, reference, visited=seen)
    close(penalty_alone(lab, "k3_token_ratio", theta), BETA * forward, atol=1e-9)
    row = oracle.row_kl_gradient(world, theta, reference)
    close(penalty_alone(lab, "k3_prefix_ratio", theta), BETA * row, atol=1e-9)
    for estimator, right in (("k2", forward), ("k2_row", row)):
        assert np.abs(penalty_alone(lab, estimator, theta) - BETA * right).max() > 1e-3
