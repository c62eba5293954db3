"""Reading rows that are already there: with few pads, and a prompt that a group shares only once.

By the laws of `Backbone` (pads, prefix and `select`) the hidden states are those of reading every row alone,
from its beginning, gradients included; dropout, where there is any, falls on a shared prompt once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from feedtune.contracts import State
from feedtune.experience import Experience

PART, COLUMN = 64, 4
"""What reading a part of a batch apart costs, in tokens, and what each of its columns costs beside its rows.

Measured on two cores with models of 1 to 5 million weights (docs/performance.md).
"""


class Reader(Protocol):
    """A policy or a backbone."""

    def __call__(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Hidden states and the new state (see `Backbone.forward`)."""
        ...

    def select(self, state: State, rows: Tensor) -> State:
        """A copy of the state with these rows (see `Backbone.select`)."""
        ...


@dataclass(frozen=True)
class Spans:
    """Stretches of real tokens, at most one of each row."""

    row: Tensor  # [S] int64
    start: Tensor  # [S] int64: the first column
    length: Tensor  # [S] int64

    def __getitem__(self, which: Tensor) -> Spans:
        """Some of them."""
        return Spans(self.row[which], self.start[which], self.length[which])


@dataclass(frozen=True)
class Shared:
    """Prompts that rows of a group share."""

    first: Tensor  # [P] int64: the row that brings each prompt
    which: Tensor  # [B] int64: the prompt of each row
    length: Tensor  # [B] int64: of each row's prompt


def read(reader: Reader, exp: Experience) -> Tensor:
    """Hidden states `[B, T, H]` after every token from the last of the prompt on; 0 or anything elsewhere.

    A prompt is what comes before a row's first action token: all that is asked of hidden states is what comes
    next where the policy chose it, and what a row as a whole amounts to.
    """
    shared = shared_prompts(exp)
    found = None if shared is None else _read_shared(reader, exp, shared)
    if found is None:
        rows = torch.arange(len(exp), device=exp.tokens.device)
        found = _read_spans(reader, exp, Spans(rows, exp.mask.int().argmax(-1), exp.lengths))
    hidden, place = found  # [N, H], [N]
    batch, width = exp.tokens.shape
    somewhere = hidden.new_zeros(batch * width + 1, hidden.shape[-1])  # the last row takes what pads say
    return somewhere.index_copy(0, place, hidden)[:-1].view(batch, width, -1)


def _read_shared(reader: Reader, exp: Experience, shared: Shared) -> tuple[Tensor, Tensor] | None:
    """Prompts, then what follows them; None where the reader keeps no state (it recomputes)."""
    width = exp.tokens.shape[1]
    found = []
    prompts = Spans(shared.first, torch.zeros_like(shared.first), shared.length[shared.first])
    for part in like_lengths(prompts.length, 4 * PART):  # each part of the prompts has its own of the answers
        tokens, real, _ = _block(exp, prompts[part])
        hidden, state = reader(tokens, real)
        if state is None:
            return None
        mine = (shared.which[:, None] == part).int()  # [B, P']
        rows = mine.any(-1).nonzero().squeeze(-1)
        which, start = mine[rows].argmax(-1), shared.length[rows]
        found.append((hidden[which, start - 1], rows * width + start - 1))
        answers = Spans(rows, start, exp.lengths[rows] - start)
        found.append(_read_spans(reader, exp, answers, _rows_of(reader, state, which)))
    return torch.cat([hidden for hidden, _ in found]), torch.cat([place for _, place in found])


def _rows_of(reader: Reader, state: State, which: Tensor) -> Callable[[Tensor], State]:
    return lambda part: reader.select(state, which[part])


def _read_spans(
    reader: Reader, exp: Experience, spans: Spans, before: Callable[[Tensor], State] = lambda part: None
) -> tuple[Tensor, Tensor]:
    """Hidden states `[N, H]` after the tokens of these spans, and their places in `[B x T]`; pads have B x T.

    `before` gives the state in which a part `[S']` of the spans begins; by default an empty one.
    """
    found = []
    for part in like_lengths(spans.length, PART):
        tokens, real, place = _block(exp, spans[part])
        hidden, _ = reader(tokens, real, before(part))
        found.append((hidden.flatten(0, 1), place.flatten()))
    return torch.cat([hidden for hidden, _ in found]), torch.cat([place for _, place in found])


def _block(exp: Experience, spans: Spans) -> tuple[Tensor, Tensor, Tensor]:
    """Spans side by side, pads behind them, `[S, W]`: tokens, which of them are real, and their places."""
    columns = torch.arange(max(1, int(spans.length.max())), device=exp.tokens.device)
    real = columns < spans.length[:, None]
    place = spans.row[:, None] * exp.tokens.shape[1] + spans.start[:, None] + columns
    tokens = exp.tokens.flatten()[torch.where(real, place, 0)]
    return tokens, real, torch.where(real, place, exp.tokens.numel())


def like_lengths(lengths: Tensor, part: float) -> list[Tensor]:
    """Numbers `[S]` in parts of similar length: the cheapest way to read them.

    n rows that are read together cost (n + COLUMN) times the longest, and `part` once.

    >>> [p.tolist() for p in like_lengths(torch.tensor([900, 2, 901, 1]), 64)]
    [[1, 3], [0, 2]]
    """
    order = lengths.argsort(stable=True)
    longest, counts = np.unique(lengths.cpu().numpy(), return_counts=True)
    upto = np.concatenate([[0], counts.cumsum()])  # rows that are no longer than the first k lengths
    best, begin = np.zeros(len(longest) + 1), []
    for last, width in enumerate(longest):
        cost = best[: last + 1] + (upto[last + 1] - upto[: last + 1] + COLUMN) * width + part
        begin.append(int(cost.argmin()))
        best[last + 1] = cost[begin[-1]]
    parts: list[Tensor] = []
    end = len(longest)
    while end:
        parts.append(order[upto[begin[end - 1]] : upto[end]].sort().values)
        end = begin[end - 1]
    return parts[::-1]


def shared_prompts(exp: Experience) -> Shared | None:
    """The prompts that neighbouring rows of a group share; None where fewer than half the rows share any.

    A prompt is what comes before the first action token. Batches with pads on the left are not looked into.
    """
    start = exp.action.int().argmax(-1)  # [B]; 0 in rows without actions
    if len(exp) < 2 or bool((start == 0).any()) or not bool(exp.mask[:, 0].all()):
        return None
    columns = torch.arange(exp.tokens.shape[1], device=exp.tokens.device)
    equal = (exp.tokens[1:] == exp.tokens[:-1]) | (columns >= start[1:, None])
    same = equal.all(-1) & (start[1:] == start[:-1]) & (exp.group[1:] == exp.group[:-1])
    new = torch.cat([same.new_ones(1), ~same])
    first = new.nonzero().squeeze(-1)
    return None if 2 * len(first) > len(exp) else Shared(first, new.cumsum(0) - 1, start)
