"""Generate and score: the policy answers prompts, a reward source judges the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from feedtune.contracts import Collector, Plan, RewardSource, Rollout, Row, Sample, Scores, mean_of_scored
from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows, place_scores
from feedtune.policy import Policy
from feedtune.rewards import Missing, score_samples
from feedtune.sampling import Decoding, Response, sample
from feedtune.text.codec import Codec, EncodedPrompt
from feedtune_plugins.collectors.measures import reward_metrics


class Generate(Collector):
    """Rollouts of a fixed number of responses to prompts of the task.

    Args:
        codec: text to tokens and back.
        reward: scores the responses.
        responses: responses of a rollout, over all ranks. More gives steadier gradients and costs time.
        group_size: responses to each prompt; it divides `responses`.
        max_new_tokens: longest response in tokens; longer ones are cut, and scored as they are.
        refill: rounds in which groups whose scores are all the same, which teach nothing about each other,
            are replaced by those of further prompts (DAPO, Yu et al. 2025); what is left of them then stays.
            Each round takes as many prompts from the task as the first, used or not.
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
        refill: int = 0,
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
        if refill < 0:
            raise UserError(f"collector.refill: expected at least 0, got {refill}")
        if refill and group_size < 2:
            raise UserError("collector.refill: groups of one have no variance; set collector.group_size")
        self.codec, self.reward = codec, reward
        self.responses, self.group_size, self.max_new_tokens = responses, group_size, max_new_tokens
        self.decoding = decoding if isinstance(decoding, Decoding) else Decoding(**(decoding or {}))
        self.warped = self.decoding.warped
        self.refill, self.records = refill, records
        self.greedy = False  # whether greedy responses are to be scored too

    def supply(self, needs: frozenset[str]) -> frozenset[str]:
        self.greedy = "greedy" in needs
        return frozenset({"greedy", "groups"} if self.group_size > 1 else {"greedy"})

    def load(self, rows: Sequence[Row], context_length: int | None) -> list[EncodedPrompt]:
        prompts: list[EncodedPrompt] = self.codec.prompts(rows)
        for number, prompt in enumerate(prompts, 1):
            needed = len(prompt.tokens) + self.max_new_tokens
            if context_length is not None and needed > context_length:
                raise UserError(
                    f"row {number} ({shortened(prompt.text)!r}): its prompt of {len(prompt.tokens)} tokens "
                    f"and collector.max_new_tokens={self.max_new_tokens} need {needed}; the backbone's "
                    f"context holds {context_length}. Shorten the row, lower collector.max_new_tokens "
                    "or raise backbone.context_length where the backbone has it"
                )
        return prompts

    def plan(self, items: int, ranks: int) -> Plan:
        if self.responses % (self.group_size * ranks):
            raise UserError(
                f"collector.responses: {self.responses} is not divisible by collector.group_size="
                f"{self.group_size} times {ranks} ranks"
            )
        rows = self.responses // ranks
        return Plan(collections=1, items=rows // self.group_size * (1 + self.refill), rows=rows)

    def collect(self, items: Sequence[EncodedPrompt], policy: Policy, generator: torch.Generator) -> Rollout:
        count = len(items) // (1 + self.refill)
        groups = self._groups(items[:count], policy, generator)
        metrics = {}
        if self.group_size > 1:
            metrics["rollout/flat_groups"] = sum(group.flat for group in groups) / count
        for start in range(count, len(items), count):
            flat = [index for index, group in enumerate(groups) if group.flat]
            fresh = self._groups(items[start : start + len(flat)], policy, generator)
            for index, group in zip(flat, fresh, strict=True):
                groups[index] = groups[index] if group.flat else group
        batch = Scored.joined(groups)
        exp = self._experience(batch)
        if self.greedy:
            best = self._greedy([group.prompts[0] for group in groups], policy, generator)
            exp = exp.with_(greedy=best.total.repeat_interleave(self.group_size))
            if isinstance(best, Missing):  # nothing to compare with; a baseline of 0 would be a score of 0
                exp = place_scores(exp, torch.full((len(exp),), torch.nan))
            metrics["rollout/greedy"] = mean_of_scored(best.total)
        records = self._records(batch)
        return Rollout(exp, {**_metrics(batch), **metrics}, records, range(len(records)))

    def _groups(
        self, items: Sequence[EncodedPrompt], policy: Policy, generator: torch.Generator
    ) -> list[Scored]:
        """A scored group of responses to each prompt."""
        if not items:
            return []
        size = self.group_size
        return self._answer(items, policy, generator, self.decoding, size).split(size)

    def _greedy(self, items: Sequence[EncodedPrompt], policy: Policy, generator: torch.Generator) -> Scores:
        """The scores of the greedy responses, one a prompt."""
        return self._answer(items, policy, generator, Decoding(greedy=True), 1).scores

    def _answer(
        self,
        items: Sequence[EncodedPrompt],
        policy: Policy,
        generator: torch.Generator,
        decoding: Decoding,
        group_size: int,
    ) -> Scored:
        responses = sample(
            policy,
            [item.tokens for item in items],
            max_new_tokens=self.max_new_tokens,
            eos_ids=self.codec.eos_ids,
            generator=generator,
            group_size=group_size,
            decoding=decoding,
            stopped=self.codec.stopped if self.codec.stop else None,
        )
        prompts = [item for item in items for _ in range(group_size)]
        samples = [self._sample(p, r) for p, r in zip(prompts, responses, strict=True)]
        return Scored(prompts, responses, samples, score_samples(self.reward, samples))

    def _sample(self, prompt: EncodedPrompt, response: Response) -> Sample:
        text = self.codec.response(response.tokens)
        return Sample(prompt.text, text, tuple(prompt.messages), prompt.row)

    def _experience(self, batch: Scored) -> Experience:
        pairs = list(zip(batch.prompts, batch.responses, strict=True))
        exp = from_rows(
            [[*p.tokens, *r.tokens] for p, r in pairs],
            [[False] * len(p.tokens) + [True] * len(r.tokens) for p, r in pairs],
            scores=batch.scores.total.tolist(),
            group=[index // self.group_size for index in range(len(pairs))],
            pad_id=self.codec.pad_id,
        )
        logp = torch.zeros(exp.tokens.shape)
        for row, (prompt, response) in enumerate(pairs):
            start = len(prompt.tokens)
            logp[row, start : start + len(response.tokens)] = torch.tensor(response.logp)
        return replace(exp, sampler_logp=logp, ended=torch.tensor([r.ended for r in batch.responses]))

    def _records(self, batch: Scored) -> list[dict[str, Any]]:
        return [
            {"prompt": s.prompt, "response": s.response, "reward": float(batch.scores.total[i])}
            | {f"reward/{name}": float(part[i]) for name, part in batch.scores.parts.items()}
            for i, s in enumerate(batch.samples[: self.records])
        ]


@dataclass(frozen=True)
class Scored:
    """Responses, row by row, with what they answer and what they are worth."""

    prompts: Sequence[EncodedPrompt]
    responses: Sequence[Response]
    samples: Sequence[Sample]
    scores: Scores

    @property
    def flat(self) -> bool:
        """Whether the scores do not tell these responses apart."""
        found = self.scores.total[~self.scores.total.isnan()]
        return len(found) < 2 or bool(found.max() == found.min())

    def split(self, size: int) -> list[Scored]:
        """Groups of so many rows."""
        starts = range(0, len(self.prompts), size)
        return [self._part(slice(start, start + size)) for start in starts]

    def _part(self, rows: slice) -> Scored:
        parts = {name: part[rows] for name, part in self.scores.parts.items()}
        scores = Scores(self.scores.total[rows], parts)
        return Scored(self.prompts[rows], self.responses[rows], self.samples[rows], scores)

    def _part_scores(self, name: str) -> torch.Tensor:
        """What a part said of these rows; NaN where the call that should have brought it has failed."""
        return self.scores.parts.get(name, torch.full_like(self.scores.total, torch.nan))

    @classmethod
    def joined(cls, groups: Sequence[Scored]) -> Scored:
        """The inverse of `split`."""
        names = dict.fromkeys(name for g in groups for name in g.scores.parts)
        scores = Scores(
            torch.cat([g.scores.total for g in groups]),
            {name: torch.cat([g._part_scores(name) for g in groups]) for name in names},
        )
        rows = [(p, r, s) for g in groups for p, r, s in zip(g.prompts, g.responses, g.samples, strict=True)]
        prompts, responses, samples = zip(*rows, strict=True)
        return cls(prompts, responses, samples, scores)


def shortened(text: str, length: int = 40) -> str:
    """The beginning of a text, enough to find it by.

    >>> shortened("How are you today?", 7)
    'How are...'
    """
    return text if len(text) <= length else f"{text[:length]}..."


def _metrics(batch: Scored) -> dict[str, float]:
    count = len(batch.samples)
    return {
        **reward_metrics(batch.scores),
        "rollout/length": sum(len(r.tokens) for r in batch.responses) / count,
        "rollout/ended": sum(r.ended for r in batch.responses) / count,
        "rollout/distinct": len({s.response for s in batch.samples}) / count,
    }
