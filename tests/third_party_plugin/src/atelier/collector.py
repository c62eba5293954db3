"""Responses with a demonstration among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from feedtune.contracts import Collector, Plan, RewardSource, Rollout, Row, Sample, mean_of_scored
from feedtune.errors import UserError
from feedtune.experience import from_rows
from feedtune.policy import Policy
from feedtune.rewards import score_samples
from feedtune.sampling import sample
from feedtune.text.codec import Codec, EncodedPrompt


class Shown(NamedTuple):
    """A prompt and how it should be answered."""

    prompt: EncodedPrompt
    answer: Sequence[int]  # tokens, end-of-text included


class Demonstrated(Collector):
    """The policy answers prompts, and the row's own `reference` stands in every group as one more answer.

    There is something to learn from before the policy has found any good answer by itself. All answers are
    scored alike. Metrics speak of the policy's own, and `rollout/demonstrated` of the references.

    Args:
        codec: text to tokens and back.
        reward: scores answers.
        responses: rows of a collection, over all ranks.
        group_size: answers to each prompt, the demonstration among them; 2 or more. It divides `responses`.
        max_new_tokens: longest answer of the policy in tokens.

    Raises:
        UserError: sizes that do not fit, or a row that is too long.
    """

    on_policy = False  # a demonstration is somebody else's

    def __init__(
        self,
        *,
        codec: Codec,
        reward: RewardSource,
        responses: int = 32,
        group_size: int = 4,
        max_new_tokens: int = 16,
    ) -> None:
        least = {
            "responses": (responses, 2),
            "group_size": (group_size, 2),
            "max_new_tokens": (max_new_tokens, 1),
        }
        for key, (value, smallest) in least.items():
            if value < smallest:
                raise UserError(f"collector.{key}: expected {smallest} or more, got {value}")
        self.codec, self.reward = codec, reward
        self.responses, self.group_size, self.max_new_tokens = responses, group_size, max_new_tokens

    def supply(self, needs: frozenset[str]) -> frozenset[str]:
        """Several rows of each group."""
        return frozenset({"groups"})

    def load(self, rows: Sequence[Row], context_length: int | None) -> list[Shown]:
        """Encode prompts and references."""
        whole = self.codec.sequences(rows)
        prompts = self.codec.prompts(rows)
        found = [Shown(p, w.tokens[len(p.tokens) :]) for p, w in zip(prompts, whole, strict=True)]
        for number, (prompt, answer) in enumerate(found, 1):
            needed = len(prompt.tokens) + max(len(answer), self.max_new_tokens)
            if context_length is not None and needed > context_length:
                raise UserError(
                    f"row {number}: its prompt and an answer need {needed} tokens, the backbone's context "
                    f"holds {context_length}; shorten the row or lower collector.max_new_tokens"
                )
        return found

    def plan(self, items: int, ranks: int) -> Plan:
        """One collection an epoch."""
        if self.responses % (self.group_size * ranks):
            raise UserError(
                f"collector.responses: {self.responses} is not divisible by collector.group_size="
                f"{self.group_size} times {ranks} ranks"
            )
        rows = self.responses // ranks
        return Plan(collections=1, items=rows // self.group_size, rows=rows)

    def collect(self, items: Sequence[Shown], policy: Policy, generator: torch.Generator) -> Rollout:
        """Groups of rows: the policy's answers, then the demonstration."""
        own = self.group_size - 1
        responses = sample(
            policy,
            [item.prompt.tokens for item in items],
            max_new_tokens=self.max_new_tokens,
            eos_ids=self.codec.eos_ids,
            generator=generator,
            group_size=own,
            stopped=self.codec.stopped if self.codec.stop else None,
        )
        prompts, answers = list[EncodedPrompt](), list[Sequence[int]]()
        for number, item in enumerate(items):
            prompts += [item.prompt] * self.group_size
            answers += [*(r.tokens for r in responses[number * own : (number + 1) * own]), item.answer]
        samples = [
            Sample(prompt.text, self.codec.response(answer), tuple(prompt.messages), prompt.row)
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        scores = score_samples(self.reward, samples)
        exp = from_rows(
            [[*p.tokens, *a] for p, a in zip(prompts, answers, strict=True)],
            [[False] * len(p.tokens) + [True] * len(a) for p, a in zip(prompts, answers, strict=True)],
            scores=scores.total.tolist(),
            group=[row // self.group_size for row in range(len(prompts))],
            pad_id=self.codec.pad_id,
        )
        shown = torch.arange(len(exp)) % self.group_size == own
        metrics = {
            "rollout/reward": mean_of_scored(scores.total[~shown]),
            **{f"rollout/reward/{name}": mean_of_scored(part[~shown]) for name, part in scores.parts.items()},
            "rollout/demonstrated": mean_of_scored(scores.total[shown]),
            "rollout/length": sum(len(r.tokens) for r in responses) / len(responses),
            "rollout/ended": sum(r.ended for r in responses) / len(responses),
        }
        few = [
            {"prompt": s.prompt, "response": s.response, "reward": score}
            for s, score in zip(samples[: self.group_size], scores.total.tolist(), strict=False)
        ]
        return Rollout(exp, {name: value for name, value in metrics.items() if value == value}, few)
