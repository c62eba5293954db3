"""The replay store: the newest rows, drawn uniformly with replacement."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import pytest
import torch

from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune_plugins.buffers import Replay


def rows(*numbers: int, width: int = 3) -> Experience:
    """Rows that say their number, with a reward of as much."""
    tokens = [[9, *[n] * (width - 1)] for n in numbers]
    actions = [[False] + [True] * (width - 1)] * len(numbers)
    return from_rows(tokens, actions, scores=[float(n) for n in numbers])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(exp: Experience) -> list[int]:
    return exp.tokens[:, 1].tolist()


def held(buffer: Replay) -> list[int]:
    """What the store holds, oldest first."""
    stored = buffer.state_dict()["store"]
    return [int(n) for n in stored["tokens"][:, 1]]


def test_keeps_the_newest_rows_up_to_its_capacity() -> None:
    buffer = Replay(capacity=5)
    assert len(buffer) == 0
    buffer.add(rows(1, 2, 3))
    assert (len(buffer), held(buffer)) == (3, [1, 2, 3])
    buffer.add(rows(4, 5, 6))
    assert held(buffer) == [2, 3, 4, 5, 6]
    buffer.add(rows(*range(10, 20)))  # more at once than it can hold
    assert held(buffer) == [15, 16, 17, 18, 19]


def test_gives_so_many_minibatches_of_so_many_rows() -> None:
    buffer = Replay(minibatch_size=7, updates=3)
    buffer.add(rows(1, 2))
    found = list(buffer.minibatches(generator()))
    assert [len(exp) for exp in found] == [7, 7, 7]
    assert buffer.steps(2) == buffer.steps(100) == 3


def test_draws_every_row_equally_often() -> None:
    buffer = Replay(minibatch_size=1000, updates=10)
    buffer.add(rows(0, 1))
    buffer.add(rows(2, 3, 4))
    counts = Counter(n for exp in buffer.minibatches(generator()) for n in numbers(exp))
    statistic = sum((counts[n] - 2000) ** 2 / 2000 for n in range(5))
    assert statistic < 18.47  # 99.9 % of chi-square with 4 degrees of freedom


def test_rows_of_different_widths_live_together() -> None:
    buffer = Replay(capacity=4, minibatch_size=50, updates=1)
    buffer.add(rows(1, 2, width=6))
    buffer.add(rows(3, 4, width=2))
    (exp,) = buffer.minibatches(generator())
    for row, number in enumerate(numbers(exp)):
        assert exp.lengths[row] == (6 if number < 3 else 2)
        assert exp.score[row] == number
        assert exp.reward[row, exp.lengths[row] - 1] == number
    buffer.add(rows(5, 6, width=2))  # the long ones are gone, and so is their width
    assert buffer.state_dict()["store"]["tokens"].shape == (4, 2)


def test_a_column_that_newer_rows_lack_is_dropped_not_mixed_up() -> None:
    buffer = Replay(minibatch_size=20, updates=1)
    buffer.add(replace(rows(1, 2), sampler_logp=torch.ones(2, 3)))
    buffer.add(rows(3))
    (exp,) = buffer.minibatches(generator())
    assert exp.sampler_logp is None


def test_the_draw_comes_from_the_generator_alone() -> None:
    buffer = Replay(minibatch_size=10, updates=2)
    buffer.add(rows(*range(30)))
    one, again, other = ([numbers(exp) for exp in buffer.minibatches(generator(seed))] for seed in (0, 0, 1))
    assert one == again != other
    assert one[0] != one[1]


def test_state_survives_a_checkpoint() -> None:
    buffer, other = (Replay(capacity=6, minibatch_size=4, updates=3) for _ in range(2))
    for first in (0, 4, 8):
        buffer.add(rows(first, first + 1, first + 2, first + 3))
    file = io.BytesIO()
    torch.save(buffer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for store in (buffer, other):
        store.add(rows(20, 21))
    assert held(other) == held(buffer) == [8, 9, 10, 11, 20, 21]
    pairs = zip(buffer.minibatches(generator()), other.minibatches(generator()), strict=True)
    assert all(numbers(one) == numbers(two) for one, two in pairs)


def test_an_empty_store_says_so() -> None:
    empty = Replay()
    empty.load_state_dict(Replay().state_dict())
    assert len(empty) == 0
    with pytest.raises(RuntimeError, match="before add"):
        next(empty.minibatches(generator()))


@pytest.mark.parametrize("name", ["capacity", "minibatch_size", "updates"])
def test_sizes_that_cannot_be_are_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=rf"^buffer\.{name}: expected at least 1, got 0$"):
        Replay(**{name: 0})
