"""Offline: experience is read from rows that are already there (pretraining, supervised tuning, logs)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal, get_args, overload

import numpy as np
import torch

from feedtune.checks import check_choice, check_used
from feedtune.contracts import Collector, Plan, RewardSource, Rollout, Row, Sample, Scores
from feedtune.errors import UserError
from feedtune.experience import from_rows
from feedtune.policy import Policy
from feedtune.rewards import score_samples
from feedtune.text.codec import Codec, EncodedSequence
from feedtune_plugins.collectors.measures import reward_metrics
from feedtune_plugins.collectors.rows import Logged, TooLong, fitted, number_in

LossOn = Literal["assistant", "all"]
Rewards = Literal["none", "column", "source"]


class Blocks(Sequence[Logged]):
    """Rows joined and cut into blocks of one size; what does not fill the last one is left out.

    In two flat arrays: millions of Python numbers would slow every step of the garbage collector.
    """

    def __init__(self, encoded: Sequence[Logged], size: int) -> None:
        self.size = size
        self.tokens = np.fromiter(chain.from_iterable(row.tokens for row in encoded), dtype=np.int32)
        self.actions = np.fromiter(chain.from_iterable(row.action for row in encoded), dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.tokens) // self.size

    @overload
    def __getitem__(self, index: int) -> Logged: ...

    @overload
    def __getitem__(self, index: slice) -> list[Logged]: ...

    def __getitem__(self, index: int | slice) -> Logged | list[Logged]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        start = range(len(self))[index] * self.size  # an index out of range raises IndexError
        block = slice(start, start + self.size)
        actions = self.actions[block].tolist()
        # Nothing predicts the first token.
        return Logged(self.tokens[block].tolist(), [False, *actions[1:]])


class Offline(Collector):
    """Rows of the task as experience, whose action tokens are those to learn from.

    An epoch is one pass over the rows.

    Args:
        codec: text to tokens.
        reward: the run's reward source; asked only with `rewards` "source".
        rows: rows of a minibatch on each rank.
        loss_on: "assistant" learns the assistant's turns (or the reference after a prompt), "all" all.
        block_size: join the rows, cut them into blocks of so many tokens and use these as rows. No pads:
            the fastest way to pretrain. null keeps rows apart.
        too_long: what happens to rows longer than the backbone's context: "truncate", "drop" or "refuse".
            A row that is cut keeps the score of the whole.
        rewards: what a row earned: "none" (imitation asks for nothing), "column" (a number that the row
            brings) or "source" (the reward source scores the logged response).
        reward_column: of rewards "column": which; null: "reward". null in the column: the row is not scored,
            and teaches nothing.
    """

    on_policy = False

    def __init__(
        self,
        *,
        codec: Codec,
        reward: RewardSource | None = None,
        rows: int = 32,
        loss_on: LossOn = "assistant",
        block_size: int | None = None,
        too_long: TooLong = "truncate",
        rewards: Rewards = "none",
        reward_column: str | None = None,
    ) -> None:
        if rows < 1:
            raise UserError(f"collector.rows: expected at least 1, got {rows}")
        if block_size is not None and block_size < 2:
            raise UserError(f"collector.block_size: expected at least 2, got {block_size}")
        check_choice("collector.loss_on", loss_on, get_args(LossOn))
        check_choice("collector.too_long", too_long, get_args(TooLong))
        check_choice("collector.rewards", rewards, get_args(Rewards))
        if block_size is not None and rewards != "none":
            raise UserError(
                f"collector.block_size: rows joined into blocks have no score of their own; "
                f"with collector.rewards={rewards} leave it null"
            )
        check_used("collector.reward_column", reward_column, rewards == "column", "collector.rewards=column")
        if rewards == "source" and reward is None:
            raise UserError("collector.rewards: 'source' needs a reward source, and there is none")
        self.codec, self.reward, self.rows, self.loss_on = codec, reward, rows, loss_on
        self.block_size, self.too_long = block_size, too_long
        self.rewards, self.reward_column = rewards, reward_column or "reward"

    def load(self, rows: Sequence[Row], context_length: int | None) -> Sequence[Logged]:
        sequences = self.codec.sequences(rows, self.loss_on)
        encoded = [self._logged(s, row, n) for n, (s, row) in enumerate(zip(sequences, rows, strict=True), 1)]
        if self.block_size is not None:
            return self._blocks(encoded, context_length)
        found = self._fitting(encoded, context_length)
        if all(math.isnan(row.reward) for row in found):
            raise UserError(f"collector.reward_column: '{self.reward_column}' is null in every row")
        return found

    def _logged(self, sequence: EncodedSequence, row: Row, number: int) -> Logged:
        if self.rewards == "column":
            score = number_in(row, self.reward_column, f"row {number}")
            return Logged(sequence.tokens, sequence.action, score)
        if self.rewards == "source":
            sample = Sample(sequence.prompt, sequence.response, sequence.messages, row)
            return Logged(sequence.tokens, sequence.action, sample=sample)
        return Logged(sequence.tokens, sequence.action)

    def _blocks(self, encoded: Sequence[Logged], context_length: int | None) -> Sequence[Logged]:
        size = self.block_size or 0
        if context_length is not None and size > context_length:
            raise UserError(
                f"collector.block_size: {size} is more than the backbone's context of {context_length} tokens"
            )
        blocks = Blocks(encoded, size)
        if not len(blocks):
            total = sum(len(row.tokens) for row in encoded)
            raise UserError(f"collector.block_size: the task has {total} tokens in all, fewer than one block")
        return blocks

    def _fitting(self, encoded: Sequence[Logged], context_length: int | None) -> list[Logged]:
        kept: list[Logged] = []
        for number, row in enumerate(encoded, 1):
            fitting = fitted(row, context_length, self.too_long, f"row {number}")
            kept += [] if fitting is None else [fitting]
        learnable = [row for row in kept if any(row.action)]
        if not learnable:
            raise UserError("the task has no row with a token to learn from that fits the context")
        return learnable

    def plan(self, items: int, ranks: int) -> Plan:
        return Plan(collections=max(1, items // (self.rows * ranks)), items=self.rows, rows=self.rows)

    def collect(self, items: Sequence[Logged], policy: Policy, generator: torch.Generator) -> Rollout:
        scores = self._scores(items)
        exp = from_rows(
            [row.tokens for row in items],
            [row.action for row in items],
            scores=None if scores is None else scores.total.tolist(),
            pad_id=self.codec.pad_id,
        )
        ended = torch.tensor([row.tokens[-1] in self.codec.eos_ids for row in items])
        metrics = {"rollout/length": float(exp.lengths.float().mean())}
        return Rollout(
            replace(exp, ended=ended), metrics if scores is None else {**reward_metrics(scores), **metrics}
        )

    def _scores(self, items: Sequence[Logged]) -> Scores | None:
        """What these rows earned; None where nobody asks."""
        if self.rewards == "none":
            return None
        if self.rewards == "column":
            return Scores(torch.tensor([row.reward for row in items]))
        assert self.reward is not None
        return score_samples(self.reward, [row.sample for row in items if row.sample is not None])
