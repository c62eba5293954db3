"""Collectors that break one law each: the suite finds it out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from breaking import broken_laws
from feedtune.contracts import Collector, Plan, RewardSource, Rollout, Row
from feedtune.errors import UserError
from feedtune.experience import Experience
from feedtune.policy import Policy
from feedtune.sampling import Decoding
from feedtune.testing import CollectorSuite
from feedtune.testing.runner import readable
from feedtune.text.codec import Codec
from feedtune_plugins.collectors import Generate


class Sound(Generate):
    """Four answers to two prompts."""

    def __init__(self, codec: Codec, reward: RewardSource) -> None:
        super().__init__(codec=codec, reward=reward, responses=4, group_size=2, max_new_tokens=4)

    def collect(self, items: Sequence[Any], policy: Policy, generator: torch.Generator) -> Rollout:
        rollout = super().collect(items, policy, generator)
        return replace(rollout, experience=self.changed(rollout.experience))

    def changed(self, exp: Experience) -> Experience:
        """What is wrong with the experience."""
        return exp


class PlansMore(Sound):
    """Promises a row more than there is."""

    def plan(self, items: int, ranks: int) -> Plan:
        plan = super().plan(items, ranks)
        return replace(plan, rows=plan.rows + 1)


class IntegerMask(Sound):
    """Has numbers for a mask."""

    def changed(self, exp: Experience) -> Experience:
        return replace(exp, ended=exp.ended.long())


class RewardsPads(Sound):
    """Puts something on the pads."""

    def changed(self, exp: Experience) -> Experience:
        return replace(exp, reward=torch.where(exp.mask | ~exp.scored[:, None], exp.reward, 1.0))


class OneGroup(Sound):
    """Puts all rows into one group, whatever they answer."""

    def changed(self, exp: Experience) -> Experience:
        return replace(exp, group=torch.zeros_like(exp.group))


class WrongLogp(Sound):
    """Tells the log-probabilities of a policy that is twice as sure."""

    def changed(self, exp: Experience) -> Experience:
        assert exp.sampler_logp is not None
        return replace(exp, sampler_logp=2 * exp.sampler_logp)


class DicesGlobally(Sound):
    """Draws who has ended from the global generator."""

    def changed(self, exp: Experience) -> Experience:
        return exp.with_(luck=torch.rand(len(exp)))


class Teaching(Sound):
    """Moves the policy while it collects."""

    def collect(self, items: Sequence[Any], policy: Policy, generator: torch.Generator) -> Rollout:
        rollout = super().collect(items, policy, generator)
        next(policy.parameters()).add_(1e-3)
        return rollout


class OnlyFloat32(Sound):
    """Refuses every other type of number."""

    def collect(self, items: Sequence[Any], policy: Policy, generator: torch.Generator) -> Rollout:
        if next(policy.parameters()).dtype != torch.float32:
            raise RuntimeError("expected float32")
        return super().collect(items, policy, generator)


class Unmeasured(Sound):
    """Has a metric without a value."""

    def collect(self, items: Sequence[Any], policy: Policy, generator: torch.Generator) -> Rollout:
        rollout = super().collect(items, policy, generator)
        broken = rollout.experience.scored.all()
        return replace(rollout, metrics={**rollout.metrics, "rollout/odd": math.nan if broken else 0.0})


class SaysTooLittle(Sound):
    """Refuses rows that do not fit, and does not say which."""

    def load(self, rows: Sequence[Row], context_length: int | None) -> Any:
        try:
            return super().load(rows, context_length)
        except UserError as error:
            if context_length is None:
                raise
            raise UserError("too long") from error


class SaysWrongRow(Sound):
    """Counts rows from the end."""

    def load(self, rows: Sequence[Row], context_length: int | None) -> Any:
        try:
            return super().load(rows, context_length)
        except UserError as error:
            if context_length is not None:
                raise
            raise UserError("row 1 cannot be read") from error


class ScoresTheUnscored(Sound):
    """Takes no opinion for a score of 0, unless nobody had one."""

    def changed(self, exp: Experience) -> Experience:
        return replace(exp, scored=torch.ones_like(exp.scored)) if exp.scored.any() else exp


class SilentZeros(Sound):
    """Where nobody has an opinion, everybody is worth 0."""

    def changed(self, exp: Experience) -> Experience:
        return exp if exp.scored.any() else replace(exp, scored=torch.ones_like(exp.scored))

    def collect(self, items: Sequence[Any], policy: Policy, generator: torch.Generator) -> Rollout:
        try:
            return super().collect(items, policy, generator)
        except UserError:
            other = Sound(self.codec, lambda samples: [0.0] * len(samples))
            return other.collect(items, policy, generator)


class Boasting(Sound):
    """Says that it supplies what it does not."""

    def supply(self, needs: frozenset[str]) -> frozenset[str]:
        return frozenset({"greedy"})


class PerformsTwice(Sound):
    """Plays every held-out row twice."""

    def perform(
        self, rows: Sequence[Row], policy: Policy, generator: torch.Generator, decoding: Decoding
    ) -> Rollout:
        return super().collect(self.load(rows, None), policy, generator)


class Undocumented(Sound):
    __doc__ = None


BROKEN: dict[Callable[..., Collector], str] = {
    PlansMore: "the plan tells the truth",
    IntegerMask: "shapes and types",
    RewardsPads: "masks agree",
    OneGroup: "rows of a group answer the same prompt",
    WrongLogp: "the sampler tells its log probabilities",
    DicesGlobally: "the same generator collects the same",
    Teaching: "the policy stays as it was",
    OnlyFloat32: "it works with every backbone",
    Unmeasured: "metrics are finite numbers and records are plain",
    SaysTooLittle: "what does not fit is cut or refused by name",
    SaysWrongRow: "a row that cannot be read is refused by its number",
    ScoresTheUnscored: "rows without a score take part in nothing",
    SilentZeros: "no score at all is never a silent 0",
    Boasting: "it supplies what it says",
    PerformsTwice: "held out rows are performed one by one",
    Undocumented: "its docstring says what it is",
}
MORE = {
    PlansMore: {"it works with every backbone"},
    IntegerMask: {"masks agree"},
    Teaching: {"the same generator collects the same", "the sampler tells its log probabilities"},
}
"""What cannot but break with it."""


def suite_of(kind: Callable[..., Collector]) -> type[CollectorSuite]:
    class Suite(CollectorSuite):
        def make(self, codec: Codec, reward: RewardSource) -> Collector:
            return kind(codec, reward)

    return Suite


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_collector_is_found_out(kind: Callable[..., Collector]) -> None:
    found = broken_laws(suite_of(kind))
    assert {BROKEN[kind]} <= set(found) <= {BROKEN[kind], *MORE.get(kind, ())}, found


def test_a_sound_one_breaks_none() -> None:
    assert broken_laws(suite_of(Sound)) == {}


def test_every_law_is_broken_by_somebody() -> None:
    """The law of parameters has tests of its own, in test_turning.py; that of GPUs needs one."""
    laws = {readable(law) for law in CollectorSuite.laws()}
    assert laws - set(BROKEN.values()) == {"no parameter is without effect", "it works on a gpu"}
