"""Reward models, by enumeration: rewards up to a constant for each prompt, and numbers by hand."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compared_pairs import Compared, bradley_terry, close, compared_by, pair, some_distribution
from feedtune.contracts import Algorithm
from feedtune.errors import UserError
from feedtune.experience import from_rows
from feedtune.policy import Policy
from feedtune.runs.export import load, save
from feedtune.scoring import row_rewards
from feedtune.text.tokenizers import TrainedTokenizer
from feedtune_plugins.algorithms import RewardModelling
from feedtune_plugins.backbones.ngram import NGram


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


@pytest.mark.parametrize("name", ["margin", "centering"])
def test_a_negative_weight_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"^algorithm\.{name}: expected at least 0, got -1\.0$"):
        RewardModelling(**{name: -1.0})
