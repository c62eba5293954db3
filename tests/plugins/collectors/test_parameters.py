"""No constructor parameter of a collector is idle."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import text_environments  # noqa: F401 - registers tests/...
from feedtune.contracts import Collector
from feedtune_plugins import collectors
from feedtune_plugins.collectors import Generate, Gymnasium, Offline, Pairs

ROWS = [
    {"prompt": "a b", "reference": "c d e", "reward": 1.0, "stars": 2.0, "chosen": "c d e", "rejected": "f"},
    {"prompt": "d", "reference": "f", "reward": 3.0, "stars": 5.0, "chosen": "f", "rejected": "a"},
]

# class -> parameter -> (one value, another), made from the toolbox
TURNS: dict[type[Collector], Mapping[str, Callable[[Any], tuple[Any, Any]]]] = {
    Generate: {
        "codec": lambda kit: (kit.codec(), kit.codec(stop=["a"])),
        "reward": lambda kit: (kit.judge([1.0] * 8), kit.judge([2.0] * 8)),
        "responses": lambda kit: (4, 8),
        "group_size": lambda kit: (1, 2),
        "max_new_tokens": lambda kit: (3, 6),
        "refill": lambda kit: (0, 1),
        "decoding": lambda kit: (None, {"top_k": 1}),
        "records": lambda kit: (1, 2),
    },
    Gymnasium: {
        "codec": lambda kit: (kit.codec(), kit.codec(eos_ids=[kit.ids["f"]])),
        "reward": lambda kit: (kit.judge([1.0] * 99), kit.judge([2.0] * 99)),
        "env": lambda kit: ("feedtune/TextEdit-v0", "tests/Parrot-v0"),
        "options": lambda kit: ({"max_edits": 3}, {"max_edits": 4}),
        "episodes": lambda kit: (4, 8),
        "group_size": lambda kit: (1, 2),
        "step": lambda kit: ("turn", "token"),
        "observe": lambda kit: ("new", "all"),
        "max_turns": lambda kit: (1, 2),
        "max_new_tokens": lambda kit: (2, 3),
        "invalid_reward": lambda kit: (0.0, -1.0),
        "decoding": lambda kit: (None, {"top_k": 1}),
        "records": lambda kit: (1, 2),
    },
    Offline: {
        "codec": lambda kit: (kit.codec(), kit.codec(eos_ids=[kit.ids["f"]])),
        "rows": lambda kit: (2, 4),
        "loss_on": lambda kit: ("assistant", "all"),
        "block_size": lambda kit: (None, 3),
        "too_long": lambda kit: ("truncate", "drop"),
        "rewards": lambda kit: ("none", "column"),
        "reward": lambda kit: (kit.judge([1.0] * 8), kit.judge([2.0] * 8)),
        "reward_column": lambda kit: ("reward", "stars"),
    },
    Pairs: {
        "codec": lambda kit: (kit.codec(), kit.codec(eos_ids=[kit.ids["f"]])),
        "pairs": lambda kit: (1, 2),
        "too_long": lambda kit: ("truncate", "drop"),
    },
}
REST: dict[tuple[type[Collector], str], dict[str, Any]] = {
    (Generate, "refill"): {"group_size": 2},
    (Gymnasium, "reward"): {"env": "feedtune/CharText-v0", "options": {"length": 1}, "step": "token"},
    (Gymnasium, "observe"): {"env": "tests/Parrot-v0", "options": {"whole": True}, "step": "token"},
    (Gymnasium, "invalid_reward"): {"env": "tests/Guess-v0"},
    (Offline, "reward"): {"rewards": "source", "rows": 2},
    (Offline, "reward_column"): {"rewards": "column"},
}
"""What else has to be so for a parameter to count."""
CASES = [(made, name) for made, turns in TURNS.items() for name in turns]


def fingerprint(collector: Collector, kit: Any) -> list[Any]:
    """One collection: sizes, every tensor, metrics and records."""
    items = collector.load(ROWS, context_length=5 if isinstance(collector, Offline | Pairs) else None)
    plan = collector.plan(len(items), ranks=1)
    wanted = [items[i % len(items)] for i in range(plan.items)]
    rollout = collector.collect(wanted, kit.babbling(), kit.generator())
    tensors = {name: value.tolist() for name, value in rollout.experience.tensors().items()}
    return [plan, tensors, dict(rollout.metrics), list(rollout.records)]


@pytest.mark.parametrize(("made", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_turning_it_moves_something(kit: Any, made: type[Collector], name: str) -> None:
    def build(value: Any) -> Collector:
        rest: dict[str, Any] = {"codec": kit.codec(), **REST.get((made, name), {})}
        if made is Generate:
            rest |= {"reward": kit.judge([1.0] * 8), "responses": 4, "max_new_tokens": 5}
        if made is Gymnasium:
            rest = {"reward": kit.judge([1.0] * 99), "env": "feedtune/TextEdit-v0", "episodes": 4} | rest
        return made(**{**rest, name: value})

    one, other = TURNS[made][name](kit)
    assert fingerprint(build(one), kit) == fingerprint(build(one), kit)
    assert fingerprint(build(one), kit) != fingerprint(build(other), kit)


def test_every_parameter_of_every_collector_is_turned() -> None:
    assert set(TURNS) == {getattr(collectors, name) for name in collectors.__all__}
    for made, turns in TURNS.items():
        # Every collector is offered the run's reward source; Pairs says that it does not use it.
        # How many environments are played at once changes no row: test_gymnasium.py counts them.
        idle = {Pairs: {"reward"}, Gymnasium: {"envs"}}.get(made, set())
        assert set(inspect.signature(made).parameters) - idle == set(turns)
