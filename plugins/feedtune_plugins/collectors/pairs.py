"""Pairs: preferences that are already there, two answers to one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import torch

from feedtune.checks import check_choice
from feedtune.contracts import Collector, Plan, RewardSource, Rollout, Row
from feedtune.errors import UserError
from feedtune.experience import from_rows
from feedtune.policy import Policy
from feedtune.text.codec import Codec
from feedtune_plugins.collectors.rows import Logged, TooLong, fitted, number_in

Pair = tuple[Logged, Logged]
MARGIN = "margin"


class Pairs(Collector):
    """Rows with the columns `chosen` and `rejected`: two neighbouring rows of one group, scored 1 and 0.

    The prompt stands in `prompt` or `messages`, or in front of both answers. Action tokens are those of the
    answer, its end-of-text token included. A column `margin`, above 0, is the chosen answer's score in place
    of 1. An epoch is one pass over the pairs.

    Args:
        codec: text to tokens.
        reward: not used; every collector is offered the run's reward source.
        pairs: pairs of a minibatch on each rank.
        too_long: what happens to pairs of which an answer with its prompt is longer than the backbone's
            context: "truncate", "drop" or "refuse". A pair of which an answer is cut off entirely is dropped.
    """

    on_policy = False

    def __init__(
        self,
        *,
        codec: Codec,
        reward: RewardSource | None = None,
        pairs: int = 16,
        too_long: TooLong = "truncate",
    ) -> None:
        if pairs < 1:
            raise UserError(f"collector.pairs: expected at least 1, got {pairs}")
        check_choice("collector.too_long", too_long, get_args(TooLong))
        del reward
        self.codec, self.pairs, self.too_long = codec, pairs, too_long

    def load(self, rows: Sequence[Row], context_length: int | None) -> list[Pair]:
        encoded = self.codec.pairs(rows)
        found: list[Pair] = []
        for number, (row, answers) in enumerate(zip(rows, encoded, strict=True), 1):
            where = f"row {number}"
            scores = (_margin(row, where), 0.0)
            logged = [Logged(a.tokens, a.action, score) for a, score in zip(answers, scores, strict=True)]
            chosen, rejected = (fitted(one, context_length, self.too_long, where) for one in logged)
            if chosen and rejected and any(chosen.action) and any(rejected.action):
                found.append((chosen, rejected))
        if not found:
            raise UserError("the task has no pair of answers that fits the context")
        return found

    def plan(self, items: int, ranks: int) -> Plan:
        collections = max(1, items // (self.pairs * ranks))
        return Plan(collections=collections, items=self.pairs, rows=2 * self.pairs)

    def collect(self, items: Sequence[Pair], policy: Policy, generator: torch.Generator) -> Rollout:
        rows = [answer for pair in items for answer in pair]
        exp = from_rows(
            [row.tokens for row in rows],
            [row.action for row in rows],
            scores=[row.reward for row in rows],
            group=[number // 2 for number in range(len(rows))],
            pad_id=self.codec.pad_id,
        )
        ended = torch.tensor([row.tokens[-1] in self.codec.eos_ids for row in rows])
        return Rollout(replace(exp, ended=ended), {"rollout/length": float(exp.lengths.float().mean())})


def _margin(row: Row, where: str) -> float:
    """The chosen answer's score above the rejected one's."""
    if row.get(MARGIN) is None:
        return 1.0
    margin = number_in(row, MARGIN, where)
    if margin <= 0:
        raise UserError(f"{where}: '{MARGIN}' must be above 0, the chosen answer's lead, got {margin:g}")
    return margin
