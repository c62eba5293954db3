"""Generate for algorithms that compare: greedy responses, and groups without variance that are replaced."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from feedtune.contracts import Plan, Sample
from feedtune.errors import UserError
from feedtune_plugins.collectors import Generate

NAN = math.nan
ROWS = [{"prompt": word} for word in ("a", "b", "c", "d", "e", "f")]


def build(kit: Any, reward: Any, **options: Any) -> Generate:
    defaults = {"responses": 4, "group_size": 2, "max_new_tokens": 4}
    return Generate(codec=kit.codec(), reward=reward, **{**defaults, **options})


class ByPrompt:
    """Scores the responses to a prompt 0, 1, 0, 1, ... in turn, or all 0 where the prompt is flat."""

    def __init__(self, flat: str, unscored: str = "") -> None:
        self.flat, self.unscored, self.calls = flat, unscored, 0

    def __call__(self, samples: list[Sample]) -> list[float]:
        self.calls += 1
        return [self._score(one, number) for number, one in enumerate(samples)]

    def _score(self, one: Sample, number: int) -> float:
        if one.prompt in self.unscored:
            return NAN
        return 0.0 if one.prompt in self.flat else float(number % 2)


def prompts_of(kit: Any, collector: Generate, exp: Any) -> list[str]:
    return [kit.codec().decode([token]) for token in exp.tokens[:: collector.group_size, 0].tolist()]


def test_flat_groups_make_room_for_further_prompts(kit: Any) -> None:
    """Prompts a and b come first; b is flat. In the first round c is tried in its place."""
    reward = ByPrompt(flat="b")
    collector = build(kit, reward, refill=2)
    assert collector.plan(6, 1) == Plan(collections=1, items=6, rows=4)
    rollout = collector.collect(collector.load(ROWS, None), kit.babbling(), kit.generator())
    assert prompts_of(kit, collector, rollout.experience) == ["a", "c"]
    assert rollout.experience.group.tolist() == [0, 0, 1, 1]
    assert rollout.experience.score.tolist() == [0, 1, 0, 1]
    assert rollout.metrics["rollout/flat_groups"] == 0.5  # as they were before
    assert reward.calls == 2  # the third round had nothing to do


def test_each_round_tries_its_own_prompts_and_what_is_left_stays(kit: Any) -> None:
    """b is flat, so is c of the first round; e of the second is not. Without it, b stays."""
    collector = build(kit, ByPrompt(flat="bc"), refill=2)
    rollout = collector.collect(collector.load(ROWS, None), kit.babbling(), kit.generator())
    assert prompts_of(kit, collector, rollout.experience) == ["a", "e"]
    capped = build(kit, ByPrompt(flat="bce"), refill=2)
    rollout = capped.collect(capped.load(ROWS, None), kit.babbling(), kit.generator())
    assert prompts_of(kit, capped, rollout.experience) == ["a", "b"]


def test_a_group_with_one_score_is_flat_too(kit: Any) -> None:
    collector = build(kit, ByPrompt(flat="", unscored="a"), refill=1)
    rollout = collector.collect(collector.load(ROWS[:4], None), kit.babbling(), kit.generator())
    assert prompts_of(kit, collector, rollout.experience) == ["c", "b"]


def test_log_probabilities_move_with_their_rows(kit: Any) -> None:
    from feedtune.scoring import score_actions

    collector = build(kit, ByPrompt(flat="ab"), refill=1)
    policy = kit.babbling()
    exp = collector.collect(collector.load(ROWS[:4], None), policy, kit.generator()).experience
    torch.testing.assert_close(score_actions(policy, exp).logp.detach(), exp.sampler_logp)


def test_greedy_responses_are_scored_once_a_prompt(kit: Any) -> None:
    """After each word the most probable one follows with certainty, so greedy says what is sampled."""
    policy = kit.saying({"a": "c", "b": "d", "c": "<eos>", "d": "<eos>"})
    shown: list[str] = []

    def length(samples: list[Sample]) -> list[float]:
        shown.extend(one.response for one in samples)
        return [{"c": 3.0, "d": NAN}[one.response] for one in samples]

    collector = build(kit, length)
    assert collector.supply(frozenset({"greedy", "values"})) == {"greedy", "groups"}
    assert build(kit, length, group_size=1).supply(frozenset()) == {"greedy"}  # nobody to compare with
    rollout = collector.collect(collector.load(ROWS[:2], None), policy, kit.generator())
    assert rollout.experience.extra["greedy"].isnan().tolist() == [False, False, True, True]
    assert rollout.experience.extra["greedy"][:2].tolist() == [3.0, 3.0]
    assert rollout.metrics["rollout/greedy"] == 3.0
    assert shown == ["c", "c", "d", "d", "c", "d"]
    without = build(kit, length)
    without.supply(frozenset())
    rollout = without.collect(without.load(ROWS[:2], None), policy, kit.generator())
    assert "greedy" not in rollout.experience.extra


def test_what_cannot_be_is_refused(kit: Any) -> None:
    with pytest.raises(UserError, match=r"collector\.refill: groups of one have no variance"):
        build(kit, ByPrompt(""), refill=1, group_size=1)
    with pytest.raises(UserError, match=r"collector\.refill: expected at least 0, got -1"):
        build(kit, ByPrompt(""), refill=-1)
