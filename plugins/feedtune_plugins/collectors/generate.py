"""Generate and score: the policy answers prompts, a reward source judges the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from feedtune.contracts import Collector, Plan, RewardSource, Rollout, Row, Sample, Scores, mean_of_scored
from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune.rewards import score_samples
from feedtune.sampling import Decoding, Response, sample
from feedtune.text import Codec, EncodedPrompt


class Generate(Collector):
    """Rollouts of a fixed number of responses to prompts of the task.

    Args:
        codec: text to tokens and back.
        reward: scores the responses.
        responses: responses of a rollout, over all ranks. More gives steadier gradients and costs time.
        group_size: responses to each prompt; it divides `responses`.
        max_new_tokens: longest response in tokens; longer ones are cut, and scored as they are.
        decoding: how tokens are drawn; anything but the policy's own distribution is refused by
            on-policy algorithms.
        records: rows of each rollout that are kept as text for samples.jsonl.
    """

    def __init__(
        self,
        *,
        codec: Codec,
        reward: RewardSource,
        responses: int = 64,
        group_size: int = 1,
        max_new_tokens: int = 32,
        decoding: Decoding | Mapping[str, Any] | None = None,
        records: int = 8,
    ) -> None:
        sizes = {"responses": responses, "group_size": group_size, "max_new_tokens": max_new_tokens}
        for name, value in sizes.items():
            if value < 1:
                raise UserError(f"collector.{name}: expected at least 1, got {value}")
        if responses % group_size:
            raise UserError(
                f"collector.group_size: {group_size} does not divide collector.responses={responses}"
            )
        self.codec, self.reward = codec, reward
        self.responses, self.group_size, self.max_new_tokens = responses, group_size, max_new_tokens
        self.decoding = decoding if isinstance(decoding, Decoding) else Decoding(**(decoding or {}))
        self.warped = self.decoding.warped
        self.records = records

    def load(self, rows: Sequence[Row], context_length: int | None) -> list[EncodedPrompt]:
        prompts: list[EncodedPrompt] = self.codec.prompts(rows)
        for number, prompt in enumerate(prompts, 1):
            needed = len(prompt.tokens) + self.max_new_tokens
            if context_length is not None and needed > context_length:
                raise UserError(
                    f"row {number}: its prompt of {len(prompt.tokens)} tokens and collector.max_new_tokens="
                    f"{self.max_new_tokens} need {needed}; the backbone's context holds {context_length}"
                )
        return prompts

    def plan(self, items: int, ranks: int) -> Plan:
        if self.responses % (self.group_size * ranks):
            raise UserError(
                f"collector.responses: {self.responses} is not divisible by collector.group_size="
                f"{self.group_size} times {ranks} ranks"
            )
        rows = self.responses // ranks
        return Plan(collections=1, items=rows // self.group_size, rows=rows)

    def collect(self, items: Sequence[EncodedPrompt], policy: Policy, generator: torch.Generator) -> Rollout:
        responses = sample(
            policy,
            [item.tokens for item in items],
            max_new_tokens=self.max_new_tokens,
            eos_ids=self.codec.eos_ids,
            generator=generator,
            group_size=self.group_size,
            decoding=self.decoding,
            stopped=self.codec.stopped if self.codec.stop else None,
        )
        prompts = [item for item in items for _ in range(self.group_size)]
        samples = [self._sample(p, r) for p, r in zip(prompts, responses, strict=True)]
        scores = score_samples(self.reward, samples)
        exp = self._experience(prompts, responses, scores)
        return Rollout(exp, _metrics(samples, responses, scores), self._records(samples, scores))

    def _sample(self, prompt: EncodedPrompt, response: Response) -> Sample:
        text = self.codec.response(response.tokens)
        return Sample(prompt.text, text, tuple(prompt.messages), prompt.row)

    def _experience(
        self, prompts: Sequence[EncodedPrompt], responses: Sequence[Response], scores: Scores
    ) -> Experience:
        rows = [[*p.tokens, *r.tokens] for p, r in zip(prompts, responses, strict=True)]
        actions = [
            [False] * len(p.tokens) + [True] * len(r.tokens) for p, r in zip(prompts, responses, strict=True)
        ]
        groups = [index // self.group_size for index in range(len(rows))]
        exp = from_rows(rows, actions, scores=scores.total.tolist(), group=groups, pad_id=self.codec.pad_id)
        logp = torch.zeros(exp.tokens.shape)
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            start = len(prompt.tokens)
            logp[row, start : start + len(response.tokens)] = torch.tensor(response.logp)
        return replace(exp, sampler_logp=logp, ended=torch.tensor([r.ended for r in responses]))

    def _records(self, samples: Sequence[Sample], scores: Scores) -> list[dict[str, Any]]:
        return [
            {"prompt": s.prompt, "response": s.response, "reward": float(scores.total[i])}
            | {f"reward/{name}": float(part[i]) for name, part in scores.parts.items()}
            for i, s in enumerate(samples[: self.records])
        ]


def _metrics(samples: Sequence[Sample], responses: Sequence[Response], scores: Scores) -> dict[str, float]:
    count = len(samples)
    return {
        "rollout/reward": mean_of_scored(scores.total),
        **{f"rollout/reward/{name}": mean_of_scored(part) for name, part in scores.parts.items()},
        "rollout/length": sum(len(r.tokens) for r in responses) / count,
        "rollout/ended": sum(r.ended for r in responses) / count,
        "rollout/distinct": len({s.response for s in samples}) / count,
        "rollout/unscored": float(scores.total.isnan().sum()) / count,
    }
