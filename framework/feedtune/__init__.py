"""feedtune tunes language models with feedback by reinforcement learning.

The names below are the public API for scripts; plugin authors find the contracts in `feedtune.contracts`.
They are imported on first use, so that `import feedtune` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feedtune.agent import Agent
    from feedtune.contracts import (
        Algorithm,
        Backbone,
        Buffer,
        Collector,
        Loss,
        Plan,
        RewardSource,
        Rollout,
        Sample,
        Scores,
        Task,
    )
    from feedtune.errors import UserError
    from feedtune.evaluation import evaluate
    from feedtune.experience import Experience
    from feedtune.module import TuningModule
    from feedtune.policy import Policy
    from feedtune.runs.export import Loaded, load, save
    from feedtune.sampling import Decoding, sample
    from feedtune.text.codec import Codec
    from feedtune.text.tokenizers import PretrainedTokenizer, TrainedTokenizer, texts_of

_HOMES = {
    "agent": ["Agent"],
    "contracts": [
        "Algorithm",
        "Backbone",
        "Buffer",
        "Collector",
        "Loss",
        "Plan",
        "RewardSource",
        "Rollout",
        "Sample",
        "Scores",
        "Task",
    ],
    "errors": ["UserError"],
    "evaluation": ["evaluate"],
    "experience": ["Experience"],
    "module": ["TuningModule"],
    "policy": ["Policy"],
    "runs.export": ["Loaded", "load", "save"],
    "sampling": ["Decoding", "sample"],
    "text.codec": ["Codec"],
    "text.tokenizers": ["PretrainedTokenizer", "TrainedTokenizer", "texts_of"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Agent",
    "Algorithm",
    "Backbone",
    "Buffer",
    "Codec",
    "Collector",
    "Decoding",
    "Experience",
    "Loaded",
    "Loss",
    "Plan",
    "Policy",
    "PretrainedTokenizer",
    "RewardSource",
    "Rollout",
    "Sample",
    "Scores",
    "Task",
    "TrainedTokenizer",
    "TuningModule",
    "UserError",
    "evaluate",
    "load",
    "sample",
    "save",
    "texts_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'feedtune' has no attribute '{name}'")
    return getattr(importlib.import_module(f"feedtune.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
