"""Random rollouts as collectors return them, and other forms of the same."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from feedtune.experience import Experience, from_rows
from feedtune.testing.tiny import VOCABULARY


def random_rollout(
    seed: int,
    groups: int,
    group_size: int,
    lengths: Sequence[int] | None = None,
    unscored: Collection[int] = (),
) -> Experience:
    """A rollout as a collector returns it, in float64; every fifth row, the first among them, is not done.

    Args:
        lengths: action tokens of each row, 0 of an empty response. By default the first row has one.
        unscored: rows that nobody had an opinion on.
    """
    random = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=random))

    rows: list[list[int]] = []
    actions: list[list[bool]] = []
    group = [number for number in range(groups) for _ in range(group_size)]
    for number in range(len(group)):
        if number % group_size == 0:
            prompt = [whole(0, VOCABULARY) for _ in range(whole(1, 4))]
        length = lengths[number] if lengths is not None else whole(1, 7) if number else 1
        acted = [True] * length
        if length > 1 and whole(0, 3) == 0:
            turn = whole(1, length)
            acted[turn:turn] = [False] * whole(1, 3)  # an observation and another turn
        rows.append(prompt + [whole(0, VOCABULARY) for _ in acted])
        actions.append([False] * len(prompt) + acted)
    scores = [math.nan if number in unscored else 1.0 for number in range(len(rows))]
    exp = from_rows(rows, actions, scores=scores, group=group)
    earns = exp.action | (exp.reward != 0)  # the last token of an empty response has its score
    reward = torch.randn(exp.tokens.shape, generator=random, dtype=torch.float64)
    done = torch.arange(len(rows)) % 5 != 0
    exp = replace(exp, reward=torch.where(earns, reward, 0), done=done, ended=done)
    greedy = torch.randn(groups, generator=random, dtype=torch.float64)
    return exp.with_(greedy=greedy.repeat_interleave(group_size))


def right_aligned(exp: Experience) -> Experience:
    """The same rows with their pads in front."""
    rows = [exp[row : row + 1].trim() for row in range(len(exp))]
    return Experience.cat([row.padded(exp.tokens.shape[1] - row.tokens.shape[1], 0) for row in rows])


def short_and_good(exp: Experience) -> Tensor | None:
    """The best of the rows with one or two action tokens, `[B]` bool; None if there is none."""
    length = exp.action.sum(-1)
    short = (length > 0) & (length <= 2)
    best = torch.where(short, exp.score, -math.inf).argmax()
    return torch.arange(len(exp)) == best if short.any() else None


def nan_at_pads(exp: Experience) -> Experience:
    """The same with NaN at the pads of all that is kept for each token, but for the reward, which is 0 there.

    >>> from feedtune.experience import from_rows
    >>> exp = from_rows([[5, 6, 7], [5, 6]], [[0, 1, 1], [0, 1]]).with_(value=torch.zeros(2, 3))
    >>> nan_at_pads(exp).extra["value"]
    tensor([[0., 0., 0.],
            [0., 0., nan]])
    """

    def spoilt(name: str, value: Tensor) -> Tensor:
        per_token = value.shape == exp.mask.shape and value.is_floating_point() and name != "reward"
        return torch.where(exp.mask, value, math.nan) if per_token else value

    def logp(name: str) -> Tensor | None:
        value: Tensor | None = getattr(exp, name)
        return None if value is None else spoilt(name, value)

    return replace(
        exp,
        sampler_logp=logp("sampler_logp"),
        old_logp=logp("old_logp"),
        ref_logp=logp("ref_logp"),
        extra={name: spoilt(name, value) for name, value in exp.extra.items()},
    )


def in_float32(exp: Experience) -> Experience:
    """As collectors give it: numbers in float32."""
    extra = {name: value.float() if value.is_floating_point() else value for name, value in exp.extra.items()}
    return replace(exp, reward=exp.reward.float(), extra=extra)
