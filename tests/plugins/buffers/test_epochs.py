"""The on-policy buffer: every row once a pass, groups whole, order from the generator alone."""

from __future__ import annotations

import io
from collections import Counter

import pytest
import torch

from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune_plugins.buffers import Epochs


def rollout(groups: list[int], first: int = 0) -> Experience:
    """Row i says 1 to 4 tokens, the first of which is its own number."""
    rows = [[9, first + i, *range(i % 4)] for i in range(len(groups))]
    return from_rows(rows, [[False] + [True] * (len(row) - 1) for row in rows], group=groups)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers(exp: Experience) -> list[int]:
    return exp.tokens[:, 1].tolist()


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("minibatches", [1, 2, 3, 5])
def test_every_row_once_a_pass_in_exactly_so_many_minibatches(passes: int, minibatches: int) -> None:
    buffer = Epochs(passes=passes, minibatches=minibatches)
    buffer.add(rollout(list(range(10))))
    found = list(buffer.minibatches(generator()))
    assert len(found) == buffer.steps(10) == passes * minibatches
    for start in range(0, len(found), minibatches):
        one_pass = found[start : start + minibatches]
        assert sorted(n for exp in one_pass for n in numbers(exp)) == list(range(10))
        sizes = [len(exp) for exp in one_pass]
        assert max(sizes) - min(sizes) <= 1


def test_groups_are_never_split_even_of_different_sizes() -> None:
    groups = [4, 4, 1, 4, 0, 0, 1, 7, 7, 7, 7]
    buffer = Epochs(passes=4, minibatches=3)
    buffer.add(rollout(groups))
    size = Counter(groups)
    seen = set()
    for exp in buffer.minibatches(generator()):
        assert all(count == size[group] for group, count in Counter(exp.group.tolist()).items())
        assert [groups[n] for n in numbers(exp)] == exp.group.tolist()  # columns stay together
        seen.add(tuple(exp.group.tolist()))
    assert len(seen) > 3  # passes differ


def test_minibatches_are_trimmed() -> None:
    buffer = Epochs(minibatches=8)
    buffer.add(rollout(list(range(8))))
    for exp in buffer.minibatches(generator()):
        assert exp.tokens.shape[1] == exp.lengths.max()


def test_the_order_comes_from_the_generator_alone() -> None:
    def order(seed: int) -> list[list[int]]:
        buffer = Epochs(passes=2, minibatches=3)
        buffer.add(rollout(list(range(12))))
        return [numbers(exp) for exp in buffer.minibatches(generator(seed))]

    torch.manual_seed(1)
    first = order(0)
    torch.manual_seed(2)
    assert order(0) == first
    assert order(1) != first
    assert first[:3] != first[3:]


def test_a_new_rollout_replaces_the_old() -> None:
    buffer = Epochs()
    buffer.add(rollout([0, 1]))
    buffer.add(rollout([0, 1, 2], first=50))
    (exp,) = buffer.minibatches(generator())
    assert sorted(numbers(exp)) == [50, 51, 52]


def test_state_survives_a_checkpoint() -> None:
    buffer, other = Epochs(passes=2, minibatches=2), Epochs(passes=2, minibatches=2)
    buffer.add(rollout([0, 0, 1, 1, 2]).with_(advantage=torch.rand(5, 5)))
    file = io.BytesIO()
    torch.save(buffer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    pairs = zip(buffer.minibatches(generator()), other.minibatches(generator()), strict=True)
    for one, two in pairs:
        assert one.tensors().keys() == two.tensors().keys()
        assert all(torch.equal(value, two.tensors()[name]) for name, value in one.tensors().items())
    empty = Epochs()
    empty.load_state_dict(Epochs().state_dict())
    with pytest.raises(RuntimeError, match="before add"):
        next(empty.minibatches(generator()))


def test_sizes_that_cannot_be_are_refused_by_name() -> None:
    for name in ("passes", "minibatches"):
        with pytest.raises(UserError, match=rf"^buffer\.{name}: expected at least 1, got 0$"):
            Epochs(**{name: 0})
    with pytest.raises(UserError, match=r"^buffer\.minibatches: 5 are more than the 4 rows of a collection$"):
        Epochs(minibatches=5).steps(4)
    buffer = Epochs(minibatches=3)
    with pytest.raises(
        UserError, match=r"^buffer\.minibatches: 3 are more than the 2 groups of a collection$"
    ):
        buffer.add(rollout([0, 0, 1, 1]))
