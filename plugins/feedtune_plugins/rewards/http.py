"""A judge elsewhere as a reward: batches of samples go to a URL, scores come back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from feedtune.checks import check_used
from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.rewards import SourceFailure, counted
from feedtune_plugins.remote.exchange import Post, shown
from feedtune_plugins.remote.reply_cache import content_hash
from feedtune_plugins.remote.service import Service
from feedtune_plugins.rewards.payloads import KEYS, payload_of

Question = tuple[dict[str, Any], Sample]
"""What is asked about one sample: what the judge is shown, and where it comes from."""


@dataclass(kw_only=True)
class Http:
    """POST `{"samples": [{"prompt": ..., "response": ...}, ...]}`, expect `{"scores": [0.5, null, ...]}`.

    null: the judge has no opinion. A sample shows `prompt`, `response`, in conversations `messages` (the
    turns before the response), and columns of the task. Equal samples are asked about once.

    A request that is not answered, or answered by 408, 425, 429, 5xx or what are no scores, is tried again;
    429 and 503 may say when (Retry-After). Other answers than 2xx refuse what was asked, and end the run.

    Args:
        url: where to.
        columns: of the task that the judge is shown, each of which every row must have. null: `reference`, in
            rows that have one.
        batch_size: samples of a request.
        concurrency: requests at a time.
        timeout: seconds from a request to the end of its answer.
        attempts: times that a request is tried. `reward_calls.attempts` counts whole calls, on top of these.
        wait: seconds before the second attempt, doubled before each further one up to a minute; null: 1.
        token_env: name of the environment variable whose value is sent as `Authorization: Bearer VALUE`.
        cache: SQLite file in which replies are kept, so that nothing is asked twice; null: none.
        version: of the judge; another one is asked anew about what is in the cache.

    Raises:
        UserError: an option is out of range, the extra `remote` is not installed, or a row lacks a column; at
            a call, the judge refuses what it was asked.
        SourceFailure: at a call, no attempt brought scores.
    """

    url: str
    columns: Sequence[str] | None = None
    batch_size: int = 32
    concurrency: int = 4
    timeout: float = 60.0
    attempts: int = 5
    wait: float | None = None
    token_env: str | None = None
    cache: str | None = None
    version: str | None = None
    needs_trust: ClassVar[tuple[str, ...]] = (
        "url",
        "token_env",
    )  # no config from elsewhere sends data or secrets unasked

    def __post_init__(self) -> None:
        self._service = Service(
            group="reward",
            needed_by="reward=http",
            url=self.url,
            batch_size=self.batch_size,
            concurrency=self.concurrency,
            timeout=self.timeout,
            attempts=self.attempts,
            wait=self.wait,
            token_env=self.token_env,
            cache=self.cache,
        )
        if isinstance(self.columns, str):
            raise UserError(f"reward.columns: expected a list, such as [{self.columns}], got text")
        check_used("reward.version", self.version, self.cache is not None, "reward.cache")
        for column in self.columns or ():
            if column in KEYS:
                raise UserError(
                    f"reward.columns: '{column}' of a sample is something else; rename the column"
                )

    @property
    def label(self) -> str:
        """What messages call it."""
        return self._service.label

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples; NaN where the judge has no opinion."""
        payloads = [payload_of(sample, row, self.columns) for row, sample in enumerate(samples)]
        keys = [content_hash(self.url, self.version, one) for one in payloads]
        questions = dict(zip(keys, zip(payloads, samples, strict=True), strict=True))
        known = self._service.replies(questions, self._ask, _described)
        scores = [math.nan if known[key] is None else known[key] for key in keys]
        return torch.tensor(scores, dtype=torch.float32)

    def _ask(self, post: Post, batch: Sequence[Question]) -> list[float | None]:
        answer = post({"samples": [payload for payload, _ in batch]})
        return _scores(answer, len(batch), self.label)


def _described(batch: Sequence[Question]) -> str:
    return counted([sample for _, sample in batch])


def _scores(answer: Any, count: int, label: str) -> list[float | None]:
    """The scores in an answer."""
    scores = answer.get("scores") if isinstance(answer, Mapping) else None
    if not isinstance(scores, list):
        raise SourceFailure(f'{label}: expected {{"scores": [...]}}: {shown(json.dumps(answer))}')
    if len(scores) != count:
        raise SourceFailure(f"{label}: expected {count} scores, one a sample, got {len(scores)}")
    for number, score in enumerate(scores, 1):
        if not (score is None or _is_score(score)):
            said = shown(json.dumps(score))
            raise SourceFailure(
                f"{label}: score {number} of {count}: expected a finite number or null, got {said}"
            )
    return scores


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 3e38
