"""Laws for authors of plugins: one suite a kind, to subclass in a test module or to run by `feedtune check`.

    from feedtune.testing import RewardSuite

    class TestMine(RewardSuite):
        def make(self) -> RewardSource:
            return Mine()

Each suite is a plain class with methods `test_*` that pytest finds; none of this needs pytest. The names
below are imported on first use.

>>> "RewardSuite" in __all__
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feedtune.testing.algorithms import AlgorithmSuite
    from feedtune.testing.backbones import AdapterSuite, BackboneSuite
    from feedtune.testing.buffers import BufferSuite
    from feedtune.testing.certification import Certificate, certify
    from feedtune.testing.collectors import CollectorSuite
    from feedtune.testing.rewards import RewardSuite, check_reward_source
    from feedtune.testing.suite import Suite
    from feedtune.testing.tasks import TaskSuite

_HOMES = {
    "AdapterSuite": "backbones",
    "AlgorithmSuite": "algorithms",
    "BackboneSuite": "backbones",
    "BufferSuite": "buffers",
    "Certificate": "certification",
    "CollectorSuite": "collectors",
    "RewardSuite": "rewards",
    "Suite": "suite",
    "TaskSuite": "tasks",
    "certify": "certification",
    "check_reward_source": "rewards",
}

__all__ = [
    "AdapterSuite",
    "AlgorithmSuite",
    "BackboneSuite",
    "BufferSuite",
    "Certificate",
    "CollectorSuite",
    "RewardSuite",
    "Suite",
    "TaskSuite",
    "certify",
    "check_reward_source",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'feedtune.testing' has no attribute '{name}'")
    return getattr(importlib.import_module(f"feedtune.testing.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
