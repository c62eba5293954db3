"""Collectors whose reward source fails on some calls: those rows alone are without a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from feedtune.contracts import Sample, Scores
from feedtune.errors import UserError
from feedtune.rewards import GuardedSource, RewardCalls, guarded
from feedtune_plugins.collectors import Generate, Gymnasium, Offline

ROWS = [{"prompt": word, "reference": "f"} for word in ("a", "b", "c", "d")]


class Failing:
    """Scores the rows of a call 0, 1, 0, 1, ... with a part of that name; calls of these numbers fail."""

    def __init__(self, *failing: int, flat: str = "") -> None:
        self.failing, self.flat, self.calls = failing, flat, 0

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        self.calls += 1
        if self.calls in self.failing:
            raise OSError("gone")
        scores = [0.0 if one.prompt in self.flat else float(row % 2) for row, one in enumerate(samples)]
        return Scores(torch.tensor(scores), {"part": torch.tensor(scores) / 2})


def forgiving(source: Any) -> GuardedSource:
    return guarded(source, RewardCalls(on_failure="missing"))


def generate(kit: Any, reward: Any, **options: Any) -> Generate:
    defaults = {"responses": 4, "group_size": 2, "max_new_tokens": 4}
    return Generate(codec=kit.codec(), reward=reward, **{**defaults, **options})


def collect(kit: Any, collector: Any, policy: Any = None) -> Any:
    items = collector.load(ROWS, None)
    items = items[: collector.plan(4, 1).items]
    return collector.collect(items, policy or kit.babbling(), kit.generator())


def test_a_call_that_fails_leaves_rows_without_score_and_actions(kit: Any) -> None:
    reward = forgiving(Failing(1))
    rollout = collect(kit, generate(kit, reward))
    exp = rollout.experience
    assert not exp.scored.any()
    assert not exp.action.any()
    assert not exp.reward.any()
    assert exp.mask.any()  # what was said is there
    assert rollout.metrics["rollout/unscored"] == 1.0
    assert reward.metrics() == {"reward/failures": 1.0, "reward/missing": 4.0}


@pytest.mark.parametrize("call", [1, 2])
def test_one_of_two_calls_of_a_rollout_may_fail(kit: Any, call: int) -> None:
    """b is flat, so c is tried in its place.

    Without the first call a and b are both flat: c and d replace them. Without the second, b stays.
    """
    collector = generate(kit, forgiving(Failing(call, flat="b")), refill=1)
    rollout = collect(kit, collector)
    exp = rollout.experience
    words = [kit.codec().decode([token]) for token in exp.tokens[::2, 0].tolist()]
    assert words == (["c", "d"] if call == 1 else ["a", "b"])
    assert exp.scored.all()
    expected = {1: [0, 1, 0, 1], 2: [0, 1, 0, 0]}[call]
    assert exp.score.tolist() == expected
    assert rollout.metrics["rollout/reward/part"] == sum(expected) / 8


def test_where_only_some_groups_are_left_their_parts_are_too(kit: Any) -> None:
    """Nothing of the second call has been heard: a, which is flat itself, stays without a score."""
    collector = generate(kit, forgiving(Failing(1, 2)), refill=1)
    rollout = collect(kit, collector)
    assert not rollout.experience.scored.any()
    # Of c and d, tried in their place, only d is heard of: a stays, without the part that d has.
    third = generate(kit, forgiving(OnlyFor("d")), refill=1)
    rollout = collect(kit, third)
    assert rollout.experience.scored.tolist() == [False, False, True, True]
    assert rollout.metrics["rollout/reward/part"] == 0.25
    assert rollout.records[0]["reward/part"] != rollout.records[0]["reward/part"]  # NaN


class OnlyFor:
    """Fails in its first call, later says nothing of prompts but these."""

    def __init__(self, prompts: str) -> None:
        self.prompts, self.calls = prompts, 0

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        self.calls += 1
        if self.calls == 1:
            raise OSError("gone")
        nan = torch.nan
        scores = [float(row % 2) if one.prompt in self.prompts else nan for row, one in enumerate(samples)]
        return Scores(torch.tensor(scores), {"part": torch.tensor(scores) / 2})


def test_greedy_responses_that_could_not_be_scored_take_the_rollout_along(kit: Any) -> None:
    """Without them there is nothing to compare with, and 0 would be made up."""
    collector = generate(kit, forgiving(Failing(2)))
    collector.supply(frozenset({"greedy"}))
    rollout = collect(kit, collector)
    exp = rollout.experience
    assert not exp.scored.any()
    assert not exp.action.any()
    assert exp.extra["greedy"].isnan().all()
    assert rollout.metrics["rollout/reward"] == 0.5  # of what was heard


def test_rows_of_a_log_that_could_not_be_scored(kit: Any) -> None:
    collector = Offline(codec=kit.codec(), reward=forgiving(Failing(1)), rows=2, rewards="source")
    assert not collect(kit, collector).experience.scored.any()
    assert collect(kit, collector).experience.scored.all()


# Environments, whose episodes ask one after another: each says "b" after "a", and is judged


class Sometimes:
    """1 for every text; calls of these numbers fail."""

    def __init__(self, *failing: int) -> None:
        self.failing, self.calls = failing, 0

    def __call__(self, samples: Sequence[Sample]) -> list[float]:
        self.calls += 1
        if self.calls in self.failing:
            raise OSError("gone")
        return [1.0 for _ in samples]


def play(kit: Any, reward: Any, greedy: bool = False) -> Any:
    options = {"length": 1, "rows": [{"prompt": "a"}]}
    collector = Gymnasium(
        codec=kit.codec(),
        reward=reward,
        env="feedtune/CharText-v0",
        options=options,
        step="token",
        episodes=4,
    )
    collector.supply(frozenset({"greedy"} if greedy else ()))
    return collect(kit, collector, kit.saying({"a": "b"}))


def test_only_the_episode_whose_judgement_failed_is_left_out(kit: Any) -> None:
    reward = forgiving(Sometimes(2))
    exp = play(kit, reward).experience
    assert exp.scored.tolist() == [True, False, True, True]
    assert exp.score.tolist() == [1, 0, 1, 1]
    assert exp.action.any(-1).tolist() == [True, False, True, True]
    assert reward.metrics() == {"reward/failures": 1.0, "reward/missing": 1.0}


def test_a_rollout_without_any_judgement_goes_on_where_calls_failed(kit: Any) -> None:
    exp = play(kit, forgiving(Sometimes(1, 2, 3, 4))).experience
    assert not exp.scored.any()
    assert not exp.action.any()
    with pytest.raises(UserError, match="a reward of every one of 4 episodes is NaN"):
        play(kit, lambda samples: [torch.nan for _ in samples])


def test_greedy_episodes_without_any_judgement_take_the_rollout_along(kit: Any) -> None:
    """Calls 5 to 8 are those of the greedy episodes; one of them is enough to compare with."""
    assert play(kit, forgiving(Sometimes(5, 6, 7)), greedy=True).experience.scored.all()
    exp = play(kit, forgiving(Sometimes(5, 6, 7, 8)), greedy=True).experience
    assert not exp.scored.any()
    assert not exp.action.any()
