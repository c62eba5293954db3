"""Offline: experience is read from rows that are already there (pretraining, supervised tuning)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Literal, get_args, overload

import numpy as np
import torch

from feedtune.contracts import Collector, Plan, RewardSource, Rollout, Row
from feedtune.errors import UserError, nearest
from feedtune.experience import from_rows
from feedtune.policy import Policy
from feedtune.text import Codec

LossOn = Literal["assistant", "all"]
TooLong = Literal["truncate", "drop", "refuse"]
Encoded = tuple[Sequence[int], Sequence[bool]]


class Blocks(Sequence[Encoded]):
    """Rows joined and cut into blocks of one size; what does not fill the last one is left out.

    In two flat arrays: millions of Python numbers would slow every step of the garbage collector.
    """

    def __init__(self, encoded: Sequence[Encoded], size: int) -> None:
        self.size = size
        self.tokens = np.fromiter(chain.from_iterable(tokens for tokens, _ in encoded), dtype=np.int32)
        self.actions = np.fromiter(chain.from_iterable(actions for _, actions in encoded), dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.tokens) // self.size

    @overload
    def __getitem__(self, index: int) -> Encoded: ...

    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...

    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        start = range(len(self))[index] * self.size  # an index out of range raises IndexError
        block = slice(start, start + self.size)
        actions = self.actions[block].tolist()
        return self.tokens[block].tolist(), [False, *actions[1:]]  # nothing predicts the first token


class Offline(Collector):
    """Rows of the task as experience, whose action tokens are those to imitate.

    An epoch is one pass over the rows.

    Args:
        codec: text to tokens.
        reward: not used; every collector is offered the run's reward source.
        rows: rows of a minibatch on each rank.
        loss_on: "assistant" imitates the assistant's turns (or the reference after a prompt), "all" all.
        block_size: join the rows, cut them into blocks of so many tokens and use these as rows. No pads:
            the fastest way to pretrain. null keeps rows apart.
        too_long: what happens to rows longer than the backbone's context: "truncate", "drop" or "refuse".
    """

    def __init__(
        self,
        *,
        codec: Codec,
        reward: RewardSource | None = None,
        rows: int = 32,
        loss_on: LossOn = "assistant",
        block_size: int | None = None,
        too_long: TooLong = "truncate",
    ) -> None:
        if rows < 1:
            raise UserError(f"collector.rows: expected at least 1, got {rows}")
        if block_size is not None and block_size < 2:
            raise UserError(f"collector.block_size: expected at least 2, got {block_size}")
        _check_choice("collector.loss_on", loss_on, get_args(LossOn))
        _check_choice("collector.too_long", too_long, get_args(TooLong))
        del reward
        self.codec, self.rows, self.loss_on = codec, rows, loss_on
        self.block_size, self.too_long = block_size, too_long

    def load(self, rows: Sequence[Row], context_length: int | None) -> Sequence[Encoded]:
        encoded: list[Encoded] = [(s.tokens, s.action) for s in self.codec.sequences(rows, self.loss_on)]
        if self.block_size is not None:
            return self._blocks(encoded, context_length)
        return self._fitting(encoded, context_length)

    def _blocks(self, encoded: Sequence[Encoded], context_length: int | None) -> Sequence[Encoded]:
        size = self.block_size or 0
        if context_length is not None and size > context_length:
            raise UserError(
                f"collector.block_size: {size} is more than the backbone's context of {context_length} tokens"
            )
        blocks = Blocks(encoded, size)
        if not len(blocks):
            total = sum(len(tokens) for tokens, _ in encoded)
            raise UserError(f"collector.block_size: the task has {total} tokens in all, fewer than one block")
        return blocks

    def _fitting(self, encoded: Sequence[Encoded], context_length: int | None) -> list[Encoded]:
        limit = context_length
        kept: list[Encoded] = []
        for number, (tokens, actions) in enumerate(encoded, 1):
            if limit is None or len(tokens) <= limit:
                kept.append((tokens, actions))
            elif self.too_long == "refuse":
                raise UserError(f"row {number}: its {len(tokens)} tokens do not fit the context of {limit}")
            elif self.too_long == "truncate":
                kept.append((tokens[:limit], actions[:limit]))
        learnable = [row for row in kept if any(row[1])]
        if not learnable:
            raise UserError("the task has no row with a token to learn from that fits the context")
        return learnable

    def plan(self, items: int, ranks: int) -> Plan:
        return Plan(collections=max(1, items // (self.rows * ranks)), items=self.rows, rows=self.rows)

    def collect(self, items: Sequence[Encoded], policy: Policy, generator: torch.Generator) -> Rollout:
        exp = from_rows([tokens for tokens, _ in items], [a for _, a in items], pad_id=self.codec.pad_id)
        return Rollout(exp, {"rollout/length": float(exp.lengths.float().mean())})


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(
            f"{key}: expected one of {', '.join(choices)}, got '{value}'.{nearest(value, choices)}"
        )
