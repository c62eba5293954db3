"""Every law over every option of conf/algorithm as it is shipped."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.config.discovery import own_conf
from feedtune.contracts import Algorithm
from feedtune.testing.algorithms import AlgorithmSuite

OPTIONS = sorted(file.stem for file in (own_conf() / "algorithm").glob("*.yaml"))
PAIRS = {"dpo", "online_dpo", "reward_model"}


@cache
def card(name: str) -> Any:
    """The node of a card, composed once."""
    extra = ["algorithm.overlong.limit=5", "algorithm.overlong.margin=3"] if name == "dapo" else []
    return compose_config([f"algorithm={name}", *extra]).algorithm


class TestEveryCard(AlgorithmSuite):
    @pytest.fixture(autouse=True, params=OPTIONS)
    def _option(self, request: pytest.FixtureRequest) -> None:
        self.build: Callable[[], Algorithm] = lambda: build(card(request.param), "algorithm")
        self.group_size = 2 if request.param in PAIRS else 4
        self.unscored_silences_its_group = request.param in PAIRS

    def make(self) -> Algorithm:
        return self.build()


SEEDED = (
    "test_pads_leave_no_trace",
    "test_rows_may_be_aligned_at_either_end",
    "test_rows_may_stand_in_any_order",
    "test_micro_batches_add_up",
    "test_a_row_without_a_score_is_as_good_as_absent",
)


@pytest.mark.parametrize("name", OPTIONS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(3, 2**31))
def test_laws_hold_for_any_rollout(name: str, seed: int) -> None:
    class Suite(AlgorithmSuite):
        group_size = 2 if name in PAIRS else 4
        unscored_silences_its_group = name in PAIRS
        seeds = (seed,)

        def make(self) -> Algorithm:
            algorithm: Algorithm = build(card(name), "algorithm")
            return algorithm

    for law in SEEDED:
        getattr(Suite(), law)()
