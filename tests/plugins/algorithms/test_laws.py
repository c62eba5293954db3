"""Every law over every option of conf/algorithm as it is shipped."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from feedtune.configs import build, compose_config
from feedtune.contracts import Algorithm
from feedtune.discovery import own_conf
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
