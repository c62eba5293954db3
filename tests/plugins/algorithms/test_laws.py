"""Laws over every option of conf/algorithm as it is shipped, on any rollout.

All laws, on the suite's own rollouts: tests/framework/testing/test_certified.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.config.discovery import own_conf
from feedtune.contracts import Algorithm
from feedtune.experience import Experience
from feedtune.testing.algorithms import AlgorithmSuite
from feedtune.testing.rollouts import random_rollout

OPTIONS = sorted(file.stem for file in (own_conf() / "algorithm").glob("*.yaml"))
PAIRS = {"dpo", "online_dpo", "reward_model"}
COMPARING = {"best_of_n", "cispo", "dapo", "dr_grpo", "grpo", "gspo", "raft", "reinforce", "rloo"}
"""By a baseline or a filter over rows. Pairs are compared too, but are none without one of their rows."""
TEMPERED = {"a2c", "ilql", "ppo", "dpo", "online_dpo", "reinforce_pp", "remax", *COMPARING}


@cache
def card(name: str) -> Any:
    """The node of a card, composed once."""
    extra = ["algorithm.overlong.limit=5", "algorithm.overlong.margin=3"] if name == "dapo" else []
    return compose_config([f"algorithm={name}", *extra]).algorithm


class CardSuite(AlgorithmSuite):
    """The laws over one card as it is shipped."""

    def take(self, name: str) -> None:
        """Choose the card."""
        self.card = card(name)
        self.group_size = 2 if name in PAIRS else 4
        self.unscored_silences_its_group = name in PAIRS
        self.compares_rows = name in COMPARING

    def make(self) -> Algorithm:
        algorithm: Algorithm = build(self.card, "algorithm")
        return algorithm

    def make_at(self, temperature: float) -> Algorithm:
        config = self.card.copy()
        config.temperature = temperature
        algorithm: Algorithm = build(config, "algorithm")
        return algorithm


def test_these_cards_have_a_temperature() -> None:
    """For these the law of temperature says something. Values act at one, which is in `acting`."""
    assert {name for name in OPTIONS if "temperature" in card(name)} == TEMPERED
    others = {"cql", "dqn", "q_learning", "soft_q"}
    assert {name for name in OPTIONS if "acting" in card(name)} == others
    assert set(OPTIONS) == {*TEMPERED, *others, "sft", "reward_model"}


SEEDED = (
    "test_pads_leave_no_trace",
    "test_rows_may_be_aligned_at_either_end",
    "test_rows_may_stand_in_any_order",
    "test_micro_batches_add_up",
    "test_a_row_without_a_score_is_as_good_as_absent",
    "test_an_empty_response_has_no_loss_and_is_there_for_others_to_compare_with",
    "test_temperature_is_mirrored_in_every_log_probability",
)
"""Laws over `AlgorithmSuite.rollouts`."""


@st.composite
def rollouts(draw: st.DrawFn, pairs: bool) -> Experience:
    """Two or three groups, with rows of one token, none, and up to six. The last group has all its scores.

    So something is left where rows without a score are taken out, and a filter has something to choose from.
    """
    size = 2 if pairs else draw(st.integers(3, 4))
    groups = draw(st.integers(2, 3))
    count = groups * size
    lengths = draw(st.lists(st.sampled_from((1, 0, 2, 3, 6)), min_size=count, max_size=count))
    unscored = draw(st.sets(st.integers(0, count - size - 1), max_size=3))
    return random_rollout(draw(st.integers(3, 2**31)), groups, size, lengths, unscored)


@pytest.mark.parametrize("name", OPTIONS)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_laws_hold_for_any_rollout(name: str, data: st.DataObject) -> None:
    exp = data.draw(rollouts(name in PAIRS))

    class Suite(CardSuite):
        def rollouts(self) -> Sequence[Experience]:
            return [exp]

    suite = Suite()
    suite.take(name)
    for law in SEEDED:
        getattr(suite, law)()
