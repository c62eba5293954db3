"""No constructor parameter of a buffer is idle."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from feedtune.contracts import Buffer
from feedtune.experience import from_rows
from feedtune_plugins import buffers
from feedtune_plugins.buffers import Epochs, Replay

TURNS: dict[type[Buffer], Mapping[str, tuple[Any, Any]]] = {
    Epochs: {"passes": (1, 2), "minibatches": (1, 2)},
    Replay: {"capacity": (3, 4), "minibatch_size": (4, 5), "updates": (1, 2)},
}
CASES = [(made, name) for made, turns in TURNS.items() for name in turns]


def fingerprint(buffer: Buffer) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for first in (0, 10):
        buffer.add(from_rows([[9, first + n] for n in range(4)], [[False, True]] * 4))
        found += [exp.tokens[:, 1].tolist() for exp in buffer.minibatches(generator)]
    return found


@pytest.mark.parametrize(("made", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_turning_it_moves_something(made: type[Buffer], name: str) -> None:
    one, other = TURNS[made][name]
    assert fingerprint(made(**{name: one})) == fingerprint(made(**{name: one}))
    assert fingerprint(made(**{name: one})) != fingerprint(made(**{name: other}))


def test_every_parameter_of_every_buffer_is_turned() -> None:
    assert set(TURNS) == {getattr(buffers, name) for name in buffers.__all__}
    for made, turns in TURNS.items():
        assert set(inspect.signature(made).parameters) == set(turns)
