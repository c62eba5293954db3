"""Rows are read in parts of like length, and nobody can tell."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from feedtune import reading
from feedtune.contracts import Backbone
from feedtune.experience import Experience, from_rows
from feedtune.reading import like_lengths, read
from feedtune.testing.rollouts import right_aligned

LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=7)


def cost(lengths: list[int], parts: list[list[int]], part: float) -> float:
    """As `like_lengths` states it."""
    each = [(len(rows) + reading.COLUMN) * max(lengths[row] for row in rows) + part for rows in parts]
    return float(sum(each))


@given(lengths=LENGTHS, part=st.sampled_from([1, 20, 64, 400]))
def test_no_other_split_of_the_sorted_rows_is_cheaper(lengths: list[int], part: int) -> None:
    found = [rows.tolist() for rows in like_lengths(torch.tensor(lengths), part)]
    assert sorted(itertools.chain(*found)) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    cheapest = min(
        cost(lengths, [order[i:j] for i, j in itertools.pairwise([0, *cuts, len(order)])], part)
        for count in range(len(order))
        for cuts in itertools.combinations(range(1, len(order)), count)
    )
    assert cost(lengths, found, part) == cheapest


def test_what_parts_cost_by_hand() -> None:
    # Apart: (2 + 4) x 10 + 64 and (1 + 4) x 100 + 64: 688. Together: (3 + 4) x 100 + 64 = 764.
    assert [rows.tolist() for rows in like_lengths(torch.tensor([10, 100, 10]), 64)] == [[0, 2], [1]]
    # Of 60 instead of 100: 124 + 364 = 488, and together 484.
    assert [rows.tolist() for rows in like_lengths(torch.tensor([10, 60, 10]), 64)] == [[0, 1, 2]]
    # Three parts, for those below 50 are best read in two: 6 x 1 + 1, 5 x 8 + 1 and 5 x 50 + 1: 299.
    # The 8 with the ones: 7 x 8 + 1 + 251 = 308; with the 50: 7 + 6 x 50 + 1 = 308; all: 8 x 50 + 1 = 401.
    assert [rows.tolist() for rows in like_lengths(torch.tensor([8, 1, 50, 1]), 1)] == [[1, 3], [0], [2]]


def ragged(prompts: tuple[int, ...], answers: tuple[int, ...], size: int) -> Experience:
    """Groups of this size: prompts of these lengths, answers of these lengths in turn."""
    random = torch.Generator().manual_seed(3)

    def text(length: int) -> list[int]:
        return torch.randint(1, 10, (length,), generator=random).tolist()

    turn = itertools.cycle(answers)
    pairs = [(prompt, text(next(turn))) for prompt in map(text, prompts) for _ in range(size)]
    rows = [prompt + answer for prompt, answer in pairs]
    actions = [[False] * len(prompt) + [True] * len(answer) for prompt, answer in pairs]
    return from_rows(rows, actions, group=[n for n in range(len(prompts)) for _ in range(size)])


def gradients(backbone: Backbone, hidden: torch.Tensor, asked: torch.Tensor) -> list[torch.Tensor | None]:
    """Of a loss that weighs every logit differently."""
    logits = backbone.unembed(hidden)
    weights = torch.arange(1.0, logits.numel() + 1, dtype=logits.dtype).view(logits.shape).sin()
    loss = torch.where(asked[..., None], logits * weights, 0).sum()
    return list(torch.autograd.grad(loss, list(backbone.parameters()), allow_unused=True))


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("aligned", ["left", "right"])
@pytest.mark.parametrize("part", [1, 10**6])
def test_hidden_states_and_gradients_are_those_of_whole_rows(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, size: int, aligned: str, part: int
) -> None:
    backbone = backbone.double()
    exp = ragged((3, 9, 4), (1, 7, 2, 12, 5, 1), size)
    exp = right_aligned(exp) if aligned == "right" else exp
    monkeypatch.setattr(reading, "PART", part)
    monkeypatch.setattr(reading, "COLUMN", 0)
    found = read(backbone, exp)
    whole, _ = backbone(exp.tokens, exp.mask)
    asked = exp.mask & (exp.action | exp.action.roll(-1, 1))  # before and at every action token
    torch.testing.assert_close(found[asked], whole[asked], atol=1e-5, rtol=0)
    mine, theirs = (gradients(backbone, hidden, asked) for hidden in (found, whole))
    for one, other in zip(mine, theirs, strict=True):  # transformers norms in float32
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)


def test_parts_leave_pads_out(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    backbone.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    monkeypatch.setattr(reading, "PART", 1)
    exp = ragged((5, 5), (2, 2, 2, 40), 4)
    read(backbone, exp)
    assert shapes == [(2, 5), (6, 2), (2, 40)]  # both prompts; short answers; long ones


@pytest.mark.parametrize(
    ("longer", "shapes"),
    [
        (30, [(2, 30), (8, 1)]),  # together (2 + 4) x 30 + 40 = 220; apart 5 x 30 + 5 x 2 + 2 x 40 = 240
        (60, [(1, 2), (4, 1), (1, 60), (4, 1)]),  # together 6 x 60 + 40 = 400; apart 300 + 10 + 80 = 390
    ],
)
def test_a_part_of_prompts_costs_four_times_as_much(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, longer: int, shapes: list[tuple[int, int]]
) -> None:
    """Each takes a part of its own for the answers, the copies of its states, and one call more."""
    found: list[tuple[int, ...]] = []
    backbone.register_forward_pre_hook(lambda _, inputs: found.append(tuple(inputs[0].shape)))
    monkeypatch.setattr(reading, "PART", 10)
    read(backbone, ragged((2, longer), (1,), 4))
    assert found == shapes


def test_rows_without_tokens_are_read_as_nothing(backbone: Backbone) -> None:
    assert not read(backbone, from_rows([[]], [[]])).any()  # one column, and no second to take a pad from
    assert not read(backbone, from_rows([[], []], [[], []])).any()
    found = read(backbone, from_rows([[1, 2, 3], []], [[False, True, True], []]))
    assert found[0].any()
    assert not found[1].any()
