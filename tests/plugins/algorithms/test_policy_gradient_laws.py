"""Laws of the policy-gradient cards: what a baseline absorbs, the first minibatch, temperature."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.config.discovery import own_conf
from feedtune.contracts import Algorithm
from feedtune.experience import Experience
from feedtune.scoring import score_actions
from feedtune.testing.algorithms import AlgorithmSuite, nudge


@cache
def node(name: str) -> Any:
    """The card of an algorithm, composed once."""
    extra = ["algorithm.overlong.limit=5", "algorithm.overlong.margin=3"] if name == "dapo" else []
    return compose_config([f"algorithm={name}", *extra]).algorithm


CARDS = sorted(
    file.stem for file in (own_conf() / "algorithm").glob("*.yaml") if "PolicyGradient" in file.read_text()
)
ABSORBING = ["cispo", "dapo", "dr_grpo", "grpo", "gspo", "reinforce", "reinforce_pp", "remax", "rloo"]
RATIO = ["cispo", "dapo", "dr_grpo", "grpo", "gspo", "ppo", "reinforce_pp"]


class Bench(AlgorithmSuite):
    """The suite's stage and rollouts, for one card and some values of it."""

    def __init__(self, name: str, **values: float) -> None:
        self.name, self.values = name, values

    def make(self) -> Algorithm:
        config = node(self.name).copy()
        config.update(self.values)
        algorithm: Algorithm = build(config, "algorithm")
        return algorithm


Bench.__test__ = False  # type: ignore[attr-defined]


def test_all_of_the_family_is_here() -> None:
    assert set(CARDS) == {*ABSORBING, "a2c", "ppo"}
    ratios = [name for name in CARDS if node(name).surrogate is not None]
    assert ratios == RATIO


def shifted(exp: Experience, by: float) -> Experience:
    """Every row is worth so much more, the greedy response too."""
    reward = torch.where(exp.last, exp.reward + by, exp.reward)
    return replace(exp, reward=reward).with_(greedy=exp.extra["greedy"] + by)


@pytest.mark.parametrize("name", CARDS)
def test_what_the_baseline_absorbs(name: str) -> None:
    """A constant on every score changes no gradient where rows are compared with rows; it does elsewhere."""
    bench = Bench(name)
    for seed in range(3):
        exp = bench.rollout(seed)
        before, after = bench.outcome(exp), bench.outcome(shifted(exp, 2.5))
        largest = max(float((after.gradients[n] - g).abs().max()) for n, g in before.gradients.items())
        assert (largest < 1e-9) == (name in ABSORBING), largest


@pytest.mark.parametrize("name", RATIO)
def test_the_first_minibatch_has_ratio_one(name: str) -> None:
    bench = Bench(name)
    stage = bench.stage()
    ready, metrics = bench.prepared(stage, bench.rollout())
    found = bench.measured(stage, ready, metrics).metrics
    assert found["policy/ratio"] == pytest.approx(1.0, abs=1e-12)
    assert found["policy/clip_fraction"] == 0.0
    nudge(stage.policy, 3, 0.3)
    moved = bench.measured(stage, ready, metrics).metrics
    assert abs(moved["policy/ratio"] - 1) > 1e-6


@pytest.mark.parametrize("name", CARDS)
def test_temperature_is_mirrored_in_every_log_probability(name: str) -> None:
    """Logits T times as large at temperature T are the same policy: same loss, same gradient of the rest."""
    plain, hot = Bench(name, temperature=1.0), Bench(name, temperature=2.5)
    found = []
    for bench, scale in ((plain, 1.0), (hot, 2.5)):
        stage = bench.stage()
        for backbone in (stage.policy.backbone, stage.reference.policy.backbone):
            for weight in backbone.output.parameters():  # type: ignore[union-attr]
                weight.data.mul_(scale)
        ready, metrics = bench.prepared(stage, bench.rollout())
        with torch.no_grad():
            stage.policy.backbone.embedding.weight.mul_(1.1)  # type: ignore[operator, union-attr]
        found.append(bench.measured(stage, ready, metrics))
    one, other = found
    assert_close(other.loss, one.loss, atol=1e-12, rtol=0)
    for part, gradient in one.gradients.items():
        factor = 2.5 if part.startswith("backbone.output") else 1.0
        assert_close(other.gradients[part] * factor, gradient, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", CARDS)
def test_one_step_a_rollout_saves_the_old_pass(name: str) -> None:
    """The ratio is 1 without measuring it, unless the reward has a KL of the policy that acted in it."""
    bench = Bench(name)
    told, untold = bench.stage(), bench.stage()
    told.algorithm.check_steps(1)
    kl = node(name).kl
    in_reward = kl is not None and kl.coefficient > 0 and kl.place == "reward"
    assert ("old_logp" in told.algorithm.needs()) == in_reward
    exp = bench.rollout()
    with torch.no_grad():
        exact = score_actions(untold.policy, exp).logp
    exp = replace(exp, sampler_logp=exact)
    outcomes = [bench.measured(s, *bench.prepared(s, exp)) for s in (told, untold)]
    bench.same(outcomes[0], outcomes[1], "one step")


@pytest.mark.parametrize("name", RATIO)
def test_old_log_probabilities_that_are_there_are_the_old_ones(name: str) -> None:
    """With one step a rollout too: whoever gives them knows better than the policy of now."""
    bench = Bench(name)
    stage = bench.stage()
    stage.algorithm.check_steps(1)
    exp = bench.rollout()
    now = score_actions(stage.policy, exp).logp.detach()
    ready, metrics = bench.prepared(stage, replace(exp, old_logp=now - 0.1))
    found = bench.measured(stage, ready, metrics).metrics
    assert found["policy/ratio"] == pytest.approx(1.1051709, abs=1e-6)
