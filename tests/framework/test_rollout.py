"""The train loader: sized, re-iterable, every item in its turn, and resumable wherever it is stopped."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from feedtune.contracts import Buffer, Collector, Plan, Rollout
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune.rollout import RolloutLoader
from feedtune_plugins.buffers import Epochs, Replay


class Echo(Collector):
    """Each item (a number) becomes `group_size` rows: itself, then 1 to 4 tokens from the generator."""

    def __init__(self, collections: int = 1, items: int = 4, group_size: int = 1) -> None:
        self.collections, self.items, self.group_size = collections, items, group_size

    def load(self, rows: Sequence[Any], context_length: int | None) -> Sequence[Any]:
        return rows

    def plan(self, items: int, ranks: int) -> Plan:
        return Plan(self.collections, self.items, self.items * self.group_size)

    def collect(self, items: Sequence[int], policy: Policy, generator: torch.Generator) -> Rollout:
        rows, actions = [], []
        for item in items:
            for _ in range(self.group_size):
                length = int(torch.randint(1, 5, (), generator=generator))
                said = torch.randint(100, 200, (length,), generator=generator).tolist()
                rows.append([item, *said])
                actions.append([False] + [True] * length)
        groups = [i // self.group_size for i in range(len(rows))]
        return Rollout(from_rows(rows, actions, group=groups))


ITEMS = list(range(10))


def loader(collector: Echo, buffer: Buffer, items: Sequence[int] = ITEMS, **options: Any) -> RolloutLoader:
    def collect(some: Sequence[int], generator: torch.Generator) -> Experience:
        # The policy plays no part here: Echo's collect never looks at it.
        return collector.collect(some, None, generator).experience  # type: ignore[arg-type]

    return RolloutLoader(items, collector, buffer, collect, **{"seed": 3, **options})


def plain(exp: Experience) -> list[object]:
    """Everything in a minibatch, as something that `==` understands."""
    tensors = {name: value.tolist() for name, value in exp.tensors().items()}
    return [tensors, exp.step_tokens, exp.step_rows]


def items_of(batches: Sequence[Experience]) -> list[int]:
    return [int(item) for exp in batches for item in exp.tokens[:, 0]]


CASES: dict[str, tuple[Callable[[], Echo], Callable[[], Buffer]]] = {
    "one step": (Echo, Epochs),
    "passes": (lambda: Echo(items=6), lambda: Epochs(passes=2, minibatches=3)),
    "groups": (lambda: Echo(items=4, group_size=3), lambda: Epochs(passes=3, minibatches=2)),
    "collections": (lambda: Echo(collections=3, items=4), lambda: Epochs(minibatches=2)),
    "uneven": (lambda: Echo(collections=2, items=5), lambda: Epochs(passes=1, minibatches=3)),
    "replay": (lambda: Echo(items=4), lambda: Replay(capacity=9, minibatch_size=3, updates=4)),
    "replay, collections": (
        lambda: Echo(collections=2, items=3),
        lambda: Replay(capacity=100, minibatch_size=5, updates=3),
    ),
}


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> tuple[Echo, Buffer]:
    collector, buffer = CASES[request.param]
    return collector(), buffer()


def fresh(case: tuple[Echo, Buffer], accumulate: int) -> RolloutLoader:
    """A loader as a new process would build it: nothing shared with the first."""
    collector, buffer = case
    if isinstance(buffer, Epochs):
        twin: Buffer = Epochs(passes=buffer.passes, minibatches=buffer.per_pass)
    else:
        assert isinstance(buffer, Replay)
        twin = Replay(capacity=buffer.capacity, minibatch_size=buffer.minibatch_size, updates=buffer.updates)
    return loader(collector, twin, accumulate=accumulate)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_yields_as_many_minibatches_as_it_says_every_epoch(
    case: tuple[Echo, Buffer], accumulate: int
) -> None:
    made = fresh(case, accumulate)
    lengths = [len(list(made)) for _ in range(4)]
    assert lengths == [len(made)] * 4
    assert made.collected == 4 * case[0].collections


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumes_at_every_position_of_every_epoch(case: tuple[Echo, Buffer], accumulate: int) -> None:
    """As Lightning does: iterate, stop pulling after the last minibatch, iterate anew for the next epoch."""
    epochs = 3
    whole = fresh(case, accumulate)
    seen: list[list[object]] = []
    stops: list[tuple[int, bytes]] = []  # minibatches seen, checkpoint

    def stop() -> None:
        file = io.BytesIO()
        torch.save(whole.state_dict(), file)
        stops.append((len(seen), file.getvalue()))

    stop()
    for _ in range(epochs):
        iterator = iter(whole)
        for position in range(len(whole)):  # never past the last
            seen.append(plain(next(iterator)))
            if (position + 1) % accumulate == 0 or position + 1 == len(whole):
                stop()  # an optimiser step is over

    assert len(stops) == epochs * -(-len(whole) // accumulate) + 1
    assert len({str(batch) for batch in seen}) > len(whole)  # epochs differ
    for count, saved in stops:
        resumed = fresh(case, accumulate)
        resumed.load_state_dict(torch.load(io.BytesIO(saved), weights_only=True))
        rest: list[list[object]] = []
        while len(rest) < len(seen) - count:
            rest.extend(plain(exp) for exp in resumed)
        assert rest == seen[count:], f"stopped after {count} minibatches"


def test_the_iterator_may_be_exhausted_or_left_alone_at_an_epochs_end(case: tuple[Echo, Buffer]) -> None:
    exhausted, left = fresh(case, 1), fresh(case, 1)
    for _ in range(3):
        everything = [plain(exp) for exp in exhausted]
        iterator = iter(left)
        assert [plain(next(iterator)) for _ in range(len(left))] == everything


def test_each_pass_over_the_items_covers_each_once() -> None:
    """10 items, 4 a collection: passes straddle collections and epochs, and no item is skipped or doubled."""
    made = loader(Echo(collections=3, items=4), Epochs())
    stream = [item for _ in range(5) for item in items_of(list(made))]  # 5 epochs x 3 x 4 = 60 = 6 passes
    # A minibatch shuffles its rows, so compare what a whole pass holds: 10 items are 2.5 collections of 4.
    collections = [stream[i : i + 4] for i in range(0, 60, 4)]
    for first in range(0, 15, 5):  # five collections are two passes
        assert Counter(itertools.chain(*collections[first : first + 5])) == Counter(ITEMS * 2)
    assert len({tuple(stream[i : i + 20]) for i in range(0, 60, 20)}) == 3  # passes are shuffled anew


def test_no_item_repeats_within_a_pass_at_the_finest_grain() -> None:
    made = loader(Echo(collections=10, items=1), Epochs())
    first, second = items_of(list(made)), items_of(list(made))
    assert sorted(first) == sorted(second) == ITEMS
    assert first != second
    assert first != ITEMS


def test_more_items_a_collection_than_there_are() -> None:
    made = loader(Echo(items=7), Epochs(), items=[0, 1, 2])
    assert sorted(Counter(items_of(list(made))).values()) == [2, 2, 3]  # two passes and a bit


@pytest.mark.parametrize("ranks", [2, 5])
def test_ranks_share_a_pass_without_overlap(ranks: int) -> None:
    collections = 10 // ranks
    parts = [
        items_of(list(loader(Echo(collections=collections, items=1), Epochs(), rank=r, ranks=ranks)))
        for r in range(ranks)
    ]
    assert sorted(itertools.chain(*parts)) == ITEMS
    # At every moment the ranks together stand where one rank alone would.
    alone = items_of(list(loader(Echo(collections=10, items=1), Epochs())))
    assert [item for step in zip(*parts, strict=True) for item in step] == alone


def test_ranks_draw_different_numbers() -> None:
    one, two = (
        next(iter(loader(Echo(items=4), Epochs(), items=[0], rank=rank, ranks=2))) for rank in range(2)
    )
    assert sorted(one.tokens.tolist()) != sorted(two.tokens.tolist())  # not only in another order


def test_everything_depends_on_the_seed() -> None:
    def content(seed: int) -> list[list[object]]:
        return [plain(exp) for exp in loader(Echo(items=4), Epochs(minibatches=2), seed=seed)]

    assert content(1) == content(1)
    assert content(1) != content(2)


def test_denominators_are_those_of_the_whole_optimiser_step() -> None:
    """7 minibatches in windows of 3: steps of 3, 3 and 1."""
    made = loader(Echo(items=7), Epochs(minibatches=7), accumulate=3)
    batches = list(made)
    for start, size in ((0, 3), (3, 3), (6, 1)):
        window = batches[start : start + size]
        tokens = sum(int(exp.action.sum()) for exp in window)
        assert [exp.step_tokens for exp in window] == [tokens] * size
        assert [exp.step_rows for exp in window] == [size] * size  # one row each


@pytest.mark.parametrize(
    ("minibatches", "accumulate", "steps"),
    [(4, 1, 4), (4, 2, 2), (4, 4, 1), (2, 4, 1), (3, 2, 2), (3, 4, 2)],  # the last: 3 + 1, 2 + 2, 1 + 3
)
def test_how_many_steps_a_collection_takes_part_in(minibatches: int, accumulate: int, steps: int) -> None:
    made = loader(Echo(collections=4, items=12), Epochs(minibatches=minibatches), accumulate=accumulate)
    assert made.steps_of_a_collection == steps


def test_denominators_are_summed_over_ranks() -> None:
    asked: list[Tensor] = []

    def with_a_twin(totals: Tensor) -> Tensor:
        asked.append(totals)
        return totals + torch.tensor([100.0, 10.0])

    made = loader(Echo(items=4), Epochs(minibatches=2), sum_over_ranks=with_a_twin)
    for exp in made:
        assert exp.step_tokens == int(exp.action.sum()) + 100
        assert exp.step_rows == 2 + 10
    assert len(asked) == 2  # once an optimiser step


def test_rows_without_actions_are_no_rows_of_the_denominator() -> None:
    class Silent(Echo):
        def collect(self, items: Sequence[int], policy: Policy, generator: torch.Generator) -> Rollout:
            exp = super().collect(items, policy, generator).experience
            action = exp.action.clone()
            action[0] = False
            return Rollout(replace(exp, action=action))

    (exp,) = loader(Silent(items=4), Epochs())
    assert exp.step_rows == 3
    assert exp.step_tokens == int(exp.action.sum())


def test_a_collector_that_breaks_its_plan_is_caught() -> None:
    class Short(Echo):
        def collect(self, items: Sequence[int], policy: Policy, generator: torch.Generator) -> Rollout:
            return super().collect(items[1:], policy, generator)

    with pytest.raises(RuntimeError, match="planned 4 rows and returned 3"):
        list(loader(Short(items=4), Epochs()))


def test_collects_only_when_a_minibatch_is_asked_for() -> None:
    """A rollout that came early would come from weights that are one step old."""
    made = loader(Echo(collections=2, items=4), Epochs(minibatches=2))
    iterator = iter(made)
    collected = []
    for _ in range(len(made)):
        next(iterator)
        collected.append(made.collected)
    assert collected == [1, 1, 2, 2]
    iter(made)
    assert made.collected == 2
