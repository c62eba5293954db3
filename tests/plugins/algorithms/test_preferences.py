"""Preferences, by enumeration: the exact expected loss over all ordered pairs, and what minimises it.

What is expected is worked out here in numpy or from `World`'s own tables; the algorithms see one pair a
time, weighted by how often it is compared and how likely it is to be labelled so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from feedtune.contracts import Algorithm
from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune.runs.export import load, save
from feedtune.scoring import row_rewards
from feedtune.text.tokenizers import TrainedTokenizer
from feedtune_plugins.algorithms import DirectPreference, RewardModelling
from feedtune_plugins.backbones.ngram import NGram

EVERY_LOSS = ["sigmoid", "cdpo", "hinge", "ipo"]
Weights = np.ndarray[Any, np.dtype[np.float64]]  # [7, 7]: of "the row's response beats the column's"


def pair(world: Any, chosen: int, rejected: int, scores: Sequence[float] = (1.0, 0.0)) -> Experience:
    """Two of the seven responses as one group."""
    said = [world.responses[chosen], world.responses[rejected]]
    return from_rows(
        [[1, *r] for r in said], [[False, *[True] * len(r)] for r in said], scores=scores, group=[0, 0]
    )


class Compared:
    """All ordered pairs of different responses, ready for the loss; those without weight left out."""

    def __init__(self, world: Any, algorithm: Algorithm, policy: Policy, weights: Weights) -> None:
        self.algorithm, self.policy = algorithm, policy
        self.pairs = [
            (float(weights[a, b]), self.ready(world, a, b))
            for a, b in itertools.permutations(range(7), 2)
            if weights[a, b] > 0
        ]

    def ready(self, world: Any, chosen: int, rejected: int) -> Experience:
        exp = world.complete(pair(world, chosen, rejected), self.algorithm, self.policy)
        exp, _ = self.algorithm.prepare(exp, self.policy)
        return exp

    def loss(self) -> Tensor:
        """The exact expected loss, with gradient."""
        losses = [(w, self.algorithm.loss(exp, self.policy)) for w, exp in self.pairs]
        return torch.stack([w * loss.sum / loss.denominator for w, loss in losses]).sum()

    def gradient(self) -> Tensor:
        trained = list(self.policy.parameters())
        found = torch.autograd.grad(self.loss(), trained, allow_unused=True)
        return torch.cat([g.flatten() for g in found if g is not None])

    def minimise(self) -> None:
        """To the bottom: the losses are convex in what the tables hold."""
        options = {"max_iter": 300, "tolerance_grad": 1e-13, "tolerance_change": 1e-16}
        optimizer = torch.optim.LBFGS(self.policy.parameters(), line_search_fn="strong_wolfe", **options)

        def closure() -> float:
            optimizer.zero_grad()
            loss = self.loss()
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        optimizer.step(closure)


def sigmoid(values: Any) -> Any:
    return 1 / (1 + np.exp(-values))


def bradley_terry(rewards: Any) -> Weights:
    """P(the row's response is preferred to the column's)."""
    return np.asarray(sigmoid(rewards[:, None] - rewards[None, :]))


def compared_by(mu: Any) -> Weights:
    """How often two responses meet, if both come from mu."""
    return np.asarray(mu[:, None] * mu[None, :])


def some_distribution(seed: int = 3) -> Any:
    p = np.random.default_rng(seed).uniform(0.5, 2.0, 7)
    return p / p.sum()


def reference_logps(world: Any, policy: Policy) -> Any:
    return world.row_logps(policy, world.reference_weights).numpy()


def set_policy(policy: Policy, logits: Any) -> None:
    """Make P(response) proportional to exp(logits) `[7]`, by the conditionals of each state's own row."""
    p = torch.as_tensor(logits, dtype=torch.float64).softmax(-1)
    zero, one = p[1:4], p[4:7]
    table = policy.backbone.table.weight.data  # type: ignore[union-attr, operator]
    # Contexts as in World.distributions: older + 4 newer, symbols are token + 1, 0 where there is none.
    table[8] = torch.stack([zero.sum(), one.sum(), p[0]]).log() * policy.temperature
    table[6], table[10] = zero.log() * policy.temperature, one.log() * policy.temperature


def close(found: Any, expected: Any, atol: float) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=atol, rtol=0)


def logps(world: Any, policy: Policy) -> Any:
    return world.row_logps(policy).detach().numpy()


def normalised(logits: Any) -> Any:
    return logits - np.log(np.exp(logits).sum())


# Direct preference optimisation


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_dpos_optimum_is_the_tilted_reference(world: Any, beta: float, temperature: float) -> None:
    """With soft Bradley-Terry labels of rewards r, and any mu that connects all: pi_ref exp(r / beta) / Z."""
    algorithm = DirectPreference(beta=beta, temperature=temperature)
    policy = world.policy(algorithm)
    rewards = world.returns(1.0).numpy()
    weights = compared_by(some_distribution()) * bradley_terry(rewards)
    expected = Compared(world, algorithm, policy, weights)
    assert expected.gradient().abs().max() > 1e-3  # not anywhere
    set_policy(policy, reference_logps(world, policy) + rewards / beta)
    assert expected.gradient().abs().max() < 1e-12
    set_policy(policy, reference_logps(world, policy) + 1.01 * rewards / beta)
    assert expected.gradient().abs().max() > 1e-5


def test_descent_on_dpos_loss_ends_there(world: Any) -> None:
    algorithm = DirectPreference(beta=0.5)
    policy = world.policy(algorithm)
    rewards = world.returns(1.0).numpy()
    Compared(world, algorithm, policy, compared_by(some_distribution()) * bradley_terry(rewards)).minimise()
    close(logps(world, policy), normalised(reference_logps(world, policy) + rewards / 0.5), atol=1e-6)


def test_ipos_optimum_follows_how_often_a_response_wins(world: Any) -> None:
    """pi_ref exp(P(y beats mu) / beta) / Z, for preferences that no rewards explain.

    E[p (d - 1/(2 beta))^2 + (1-p) (d + 1/(2 beta))^2] = E (d - (2p-1)/(2 beta))^2 + const, and with
    d = s(y) - s(y') a least-squares fit whose normal equations give s(y) = P(y beats mu) / beta + const.
    """
    draw = np.random.default_rng(5).uniform(0, 1, (7, 7))
    preferred = np.triu(draw, 1) + np.tril(1 - draw.T, -1) + 0.5 * np.eye(7)
    mu = some_distribution()
    algorithm = DirectPreference(loss="ipo", beta=0.4)
    policy = world.policy(algorithm)
    expected = Compared(world, algorithm, policy, compared_by(mu) * preferred)
    assert expected.gradient().abs().max() > 1e-3
    target = normalised(reference_logps(world, policy) + preferred @ mu / 0.4)
    set_policy(policy, target)
    assert expected.gradient().abs().max() < 1e-12
    set_policy(policy, 0.0 * target)
    expected.minimise()
    close(logps(world, policy), target, atol=1e-7)


def test_cdpos_optimum_matches_the_smoothed_wins(world: Any) -> None:
    """Smoothing by e turns P into e + (1 - 2e) P; the optimum's expected wins are just those.

    Such labels are no Bradley-Terry labels any more, so the fit is found here by Newton's method.
    """
    smoothing, beta = 0.2, 0.5
    rewards, meet = world.returns(1.0).numpy(), compared_by(some_distribution())
    wins = smoothing + (1 - 2 * smoothing) * bradley_terry(rewards)
    lead = np.zeros(7)
    for _ in range(50):
        model = bradley_terry(lead)
        slope = meet * model * (1 - model)
        residual = (meet * (model - wins)).sum(1)
        lead = lead - np.linalg.pinv(np.diag(slope.sum(1)) - slope) @ residual
    assert np.abs((meet * (bradley_terry(lead) - wins)).sum(1)).max() < 1e-14
    algorithm = DirectPreference(loss="cdpo", beta=beta, label_smoothing=smoothing)
    policy = world.policy(algorithm)
    expected = Compared(world, algorithm, policy, meet * bradley_terry(rewards))
    set_policy(policy, reference_logps(world, policy) + lead / beta)
    assert expected.gradient().abs().max() < 1e-12
    set_policy(policy, reference_logps(world, policy) + rewards / beta)  # plain DPO's
    assert expected.gradient().abs().max() > 1e-4


@pytest.mark.parametrize("smoothing", [0.05, 0.3])
def test_cdpo_of_sure_labels_stops_at_the_smoothings_odds(world: Any, smoothing: float) -> None:
    """beta delta = log((1 - e) / e), where plain DPO would never stop."""
    algorithm = DirectPreference(loss="cdpo", beta=0.5, label_smoothing=smoothing)
    policy = world.policy(algorithm)
    weights = np.zeros((7, 7))
    weights[2, 5] = 1.0
    expected = Compared(world, algorithm, policy, weights)
    logits = reference_logps(world, policy)
    logits[2] += math.log((1 - smoothing) / smoothing) / 0.5
    set_policy(policy, logits)
    assert expected.gradient().abs().max() < 1e-12
    logits[2] += 0.1
    set_policy(policy, logits)
    assert expected.gradient().abs().max() > 1e-3


def test_hinges_optimum_is_a_ladder_of_steps_of_one_over_beta(world: Any) -> None:
    """Three responses, compared with each other alone: pi_ref exp(rank / beta).

    A pair that is preferred with p costs p max(0, 1-u) + (1-p) max(0, 1+u): slope -(2p-1) up to a lead
    u = 1, 1-p beyond. At leads 1, 1 and (between first and third) 2, with p = .9, .9, .98: a longer first or
    second step costs .1 + .02, a shorter one .8 - .02. The cost is convex, so this is the only optimum.
    """
    beta, rows = 0.5, [1, 4, 6]
    preferred = np.zeros((7, 7))
    for (a, b), p in {(0, 1): 0.9, (1, 2): 0.9, (0, 2): 0.98}.items():
        preferred[rows[a], rows[b]], preferred[rows[b], rows[a]] = p, 1 - p
    algorithm = DirectPreference(loss="hinge", beta=beta)
    policy = world.policy(algorithm)
    expected = Compared(world, algorithm, policy, preferred)

    def cost(leads: Any) -> float:
        logits = reference_logps(world, policy)
        logits[rows] += np.asarray(leads) / beta
        set_policy(policy, logits)
        return float(expected.loss().detach())

    # .9 0 + .1 2, twice, and .98 0 + .02 3
    best = cost([2.0, 1.0, 0.0])
    assert best == pytest.approx(0.46, abs=1e-12)
    for angle in np.linspace(0, 2 * np.pi, 24, endpoint=False):
        first, second = 0.01 * np.cos(angle), 0.01 * np.sin(angle)
        assert cost([2.0 + first, 1.0, -second]) > best + 1e-4
    assert cost([2.0 + 5, 1.0 + 5, 0.0 + 5]) == pytest.approx(best, abs=1e-12)  # leads are all that counts


def test_online_pairs_weigh_as_they_are_drawn(world: Any) -> None:
    """The mean gradient over all pairs of fresh samples; ties give none, nor does the drawing."""
    rewards = world.returns(1.0)
    rewards[3] = rewards[5]  # two responses are worth the same
    algorithm = DirectPreference(beta=0.5)
    policy = world.policy(algorithm)
    table = policy.backbone.table.weight
    p = world.row_logps(policy).detach().exp()
    found = torch.zeros_like(table)
    for a, b in itertools.product(range(7), repeat=2):
        exp = world.complete(pair(world, a, b, rewards[[a, b]].tolist()), algorithm, policy)
        exp, metrics = algorithm.prepare(exp, policy)
        tied = bool(rewards[a] == rewards[b])
        assert metrics["rollout/dropped_pairs"] == float(tied)
        assert bool(exp.action.any()) != tied
        loss = algorithm.loss(exp, policy)
        found += p[a] * p[b] * torch.autograd.grad(loss.sum / loss.denominator, [table])[0]

    lead = 0.5 * (world.row_logps(policy) - world.row_logps(policy, world.reference_weights).detach())
    better = (rewards[:, None] > rewards[None, :]).double()
    cost = (
        2 * p[:, None] * p[None, :] * better * -torch.nn.functional.logsigmoid(lead[:, None] - lead[None, :])
    )
    (exact,) = torch.autograd.grad(cost.sum(), [table])
    assert exact.abs().max() > 1e-3
    torch.testing.assert_close(found, exact, atol=1e-12, rtol=1e-10)


# By hand


def by_hand(world: Any) -> Experience:
    """Two responses under a uniform policy: log 1/3 a token. Leads over the reference in comments."""
    exp = pair(world, 0, 5)  # [2] and [1, 1]
    # chosen: -log 3 + 2, its one token being the end; rejected: -2 log 3 + 2. The lead is log 3.
    return replace(exp, ref_logp=torch.tensor([[0, -2.0, 0], [0, -1.25, -0.75]], dtype=torch.float64))


LOG3 = math.log(3)
GOLDENS = {
    "sigmoid": ({"beta": 1.0}, math.log(4 / 3)),  # sigmoid(log 3) = 3/4
    "cdpo": ({"beta": 1.0}, 0.9 * math.log(4 / 3) + 0.1 * math.log(4)),  # smoothed by .1 unless told
    "hinge": ({"beta": 0.5}, 1 - 0.5 * LOG3),
    "ipo": ({"beta": 0.25}, (LOG3 - 2) ** 2),  # 1 / (2 beta) = 2
}


@pytest.mark.parametrize("kind", EVERY_LOSS)
def test_a_pair_by_hand(world: Any, kind: Any) -> None:
    options, expected = GOLDENS[kind]
    algorithm = DirectPreference(loss=kind, **options)
    policy = world.policy(algorithm)
    policy.backbone.table.weight.data.zero_()
    exp, metrics = algorithm.prepare(by_hand(world), policy)
    loss = algorithm.loss(exp, policy)
    assert metrics == {"rollout/dropped_pairs": 0.0}
    assert float(loss.denominator) == 1.0  # pair
    assert loss.sum.item() == pytest.approx(expected, rel=1e-12)
    assert float(loss.metrics["loss/policy"]) == pytest.approx(expected, rel=1e-12)
    assert float(loss.metrics["policy/margin"]) == pytest.approx(options["beta"] * LOG3, rel=1e-12)
    assert float(loss.metrics["policy/preference_accuracy"]) == 1.0


def test_a_wrong_order_is_no_success(world: Any) -> None:
    algorithm = DirectPreference(beta=1.0)
    policy = world.policy(algorithm)
    policy.backbone.table.weight.data.zero_()
    exp = by_hand(world)
    exp = replace(exp, reward=exp.reward.flip(0) * 0 + torch.tensor([[0, 0, 0], [0, 0, 1.0]]))
    metrics = algorithm.loss(exp, policy).metrics
    assert float(metrics["policy/preference_accuracy"]) == 0.0
    assert float(metrics["policy/margin"]) == pytest.approx(-LOG3, rel=1e-12)
    assert float(metrics["loss/policy"]) == pytest.approx(math.log(4), rel=1e-12)


# The reward model


def test_the_reward_models_optimum_is_the_rewards_up_to_a_constant(world: Any) -> None:
    algorithm = RewardModelling()
    policy = world.policy(algorithm)
    rewards = world.returns(1.0).numpy()
    meet = compared_by(some_distribution())
    meet[6], meet[:, 6] = 0, 0  # the head reads two tokens: to it, 1 2 after the prompt 1 is as 2 is
    expected = Compared(world, algorithm, policy, meet * bradley_terry(rewards))
    assert expected.gradient().abs().max() > 1e-3
    head = policy.heads["reward"].weight.data
    for response, reward in list(zip(world.responses, rewards, strict=True))[:6]:
        older, newer = [2, *(token + 1 for token in response)][
            -2:
        ]  # the last two tokens, the prompt before them
        head[older + 4 * newer] = reward + 5.0
    assert expected.gradient().abs().max() < 1e-12


RESPONSES = [[2], *(list(pair) for pair in itertools.product((0, 1), (0, 1, 2)))]


def of_two_prompts(algorithm: Algorithm, policy: Policy, rewards: Any) -> Compared:
    """All pairs of the seven responses to each prompt, as often as Bradley-Terry raters choose them."""
    ready, weights = [], []
    for prompt, (a, b) in itertools.product((0, 1), itertools.permutations(range(7), 2)):
        said = [[prompt, *RESPONSES[a]], [prompt, *RESPONSES[b]]]
        actions = [[False, *[True] * len(RESPONSES[i])] for i in (a, b)]
        ready.append(from_rows(said, actions, scores=[1.0, 0.0], group=[0, 0]))
        weights.append(bradley_terry(rewards[prompt])[a, b] / 84)
    everything = Compared.__new__(Compared)
    everything.algorithm, everything.policy = algorithm, policy
    everything.pairs = list(zip(weights, ready, strict=True))
    return everything


def found_rewards(policy: Policy, prompt: int) -> Any:
    rows = [[prompt, *r] for r in RESPONSES]
    exp = from_rows(rows, [[False, *[True] * len(r)] for r in RESPONSES])
    return row_rewards(policy, exp).detach().numpy()


def test_it_recovers_the_rewards_of_two_prompts_each_up_to_its_own_constant() -> None:
    """From a head of zeros, whose mean over a prompt's responses no pair ever moves."""
    rewards = np.random.default_rng(2).normal(size=(2, 7)) + np.array([[3.0], [-1.0]])
    algorithm = RewardModelling()
    policy = algorithm.build_policy(lambda: NGram(vocab_size=3, n=4).double())
    of_two_prompts(algorithm, policy, rewards).minimise()
    for prompt in (0, 1):
        close(found_rewards(policy, prompt), rewards[prompt] - rewards[prompt].mean(), atol=1e-6)


def test_centering_gives_each_prompt_the_mean_zero_wherever_the_head_began() -> None:
    """Pairs say nothing of the mean, so that at the optimum the pull towards 0 has its way; order stays."""
    rewards = np.random.default_rng(2).normal(size=(2, 7)) + np.array([[3.0], [-1.0]])
    algorithm = RewardModelling(centering=0.01)
    policy = algorithm.build_policy(lambda: NGram(vocab_size=3, n=4).double())
    policy.heads["reward"].weight.data.fill_(5.0)  # type: ignore[operator]
    of_two_prompts(algorithm, policy, rewards).minimise()
    for prompt in (0, 1):
        found = found_rewards(policy, prompt)
        assert found.mean() == pytest.approx(0.0, abs=1e-5)
        assert found.argsort().tolist() == rewards[prompt].argsort().tolist()


@pytest.mark.parametrize(("centering", "expected"), [(0.0, 0.0), (0.5, 0.5), (2.0, 2.0)])
def test_centering_by_hand(world: Any, centering: float, expected: float) -> None:
    """The head gives 2 and -1, of which the sum is 1, squared 1."""
    algorithm = RewardModelling(centering=centering)
    policy = world.policy(algorithm)
    head = policy.heads["reward"].weight.data.zero_()
    head[2 + 4 * 3], head[2 + 4 * 2] = 2.0, -1.0  # contexts (1, 2) and (1, 1)
    ready, _ = algorithm.prepare(pair(world, 0, 5), policy)
    loss = algorithm.loss(ready, policy)
    assert loss.sum.item() - math.log(1 + math.exp(-3)) == pytest.approx(expected, rel=1e-12)
    assert float(loss.metrics["loss/reward"]) == pytest.approx(loss.sum.item())


def test_a_reward_pair_by_hand(world: Any) -> None:
    """Scores 2 and .5 apart: margin 1 asks for a lead of 1.5; the head gives 2 and -1, read after the row."""
    exp = pair(world, 0, 5, [2.0, 0.5])  # 1 2 and 1 1 1
    for margin, lead in ((0.0, 3.0), (1.0, 1.5), (2.0, 0.0)):
        algorithm = RewardModelling(margin=margin)
        policy = world.policy(algorithm)
        head = policy.heads["reward"].weight.data.zero_()
        head[2 + 4 * 3], head[2 + 4 * 2] = 2.0, -1.0  # contexts (1, 2) and (1, 1): the last two tokens
        ready, _ = algorithm.prepare(exp, policy)
        loss = algorithm.loss(ready, policy)
        assert loss.sum.item() == pytest.approx(math.log(1 + math.exp(-lead)), rel=1e-12)
        assert float(loss.metrics["loss/reward"]) == pytest.approx(loss.sum.item())
        assert float(loss.metrics["reward/margin"]) == 3.0
        assert float(loss.metrics["reward/preference_accuracy"]) == 1.0


def test_the_head_survives_the_disk(world: Any, tmp_path: Path) -> None:
    codec = TrainedTokenizer(kind="char").build(lambda: ["ab"])
    algorithm = RewardModelling()
    policy = world.policy(algorithm).float()
    loaded = load(save(policy, codec, tmp_path / "export")).policy
    exp = world.experience([0, 3, 5])
    rewards = row_rewards(policy, exp)
    assert rewards.unique().numel() == 3
    assert torch.equal(row_rewards(loaded, exp), rewards)


# Laws, for every loss

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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"loss": "hing"},
            "algorithm.loss: expected one of sigmoid, cdpo, hinge, ipo, got 'hing'. Did you mean 'hinge'?",
        ),
        ({"beta": 0.0}, "algorithm.beta: expected a number above 0, got 0.0"),
        ({"temperature": -1.0}, "algorithm.temperature: expected a number above 0, got -1.0"),
        ({"label_smoothing": 0.5}, "algorithm.label_smoothing: expected a number in [0, 0.5), got 0.5"),
        (
            {"loss": "cdpo", "label_smoothing": 0.0},
            "algorithm.label_smoothing: cdpo with 0 is sigmoid; give more, or choose that",
        ),
    ],
)
def test_wrong_values_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        DirectPreference(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["margin", "centering"])
def test_a_negative_weight_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"^algorithm\.{name}: expected at least 0, got -1\.0$"):
        RewardModelling(**{name: -1.0})
