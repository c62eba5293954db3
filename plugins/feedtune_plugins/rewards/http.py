"""A judge elsewhere as a reward: batches of samples go to a URL, scores come back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlsplit

import torch
from torch import Tensor

from feedtune.checks import check_positive, check_used
from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.rewards import SourceFailure, check_tenacity, counted, in_threads, note_retry, retried
from feedtune_plugins.rewards.checks import at_least
from feedtune_plugins.rewards.http_exchange import Exchange
from feedtune_plugins.rewards.payloads import KEYS, payload_of
from feedtune_plugins.rewards.reply_cache import ReplyCache, content_hash

Question = tuple[str, dict[str, Any], Sample]
"""What is asked about one sample: its key, what the judge is shown, and where it comes from."""


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
        _check_url(self.url)
        if isinstance(self.columns, str):
            raise UserError(f"reward.columns: expected a list, such as [{self.columns}], got text")
        for name, value in {"batch_size": self.batch_size, "concurrency": self.concurrency}.items():
            at_least(f"reward.{name}", value, 1)
        at_least("reward.attempts", self.attempts, 1)
        check_positive("reward.timeout", self.timeout)
        if self.wait is not None:
            at_least("reward.wait", self.wait, 0)
        check_used("reward.wait", self.wait, self.attempts > 1, "reward.attempts above 1")
        check_used("reward.version", self.version, self.cache is not None, "reward.cache")
        for column in self.columns or ():
            if column in KEYS:
                raise UserError(
                    f"reward.columns: '{column}' of a sample is something else; rename the column"
                )
        if self.attempts > 1:
            check_tenacity("reward=http with reward.attempts above 1")
        self._exchange = Exchange(self.label, self.url, self.timeout, self.concurrency, self.token_env)
        self._cache = ReplyCache(self.cache) if self.cache is not None else None

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"reward.url={self.url}"

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples; NaN where the judge has no opinion."""
        shown = [payload_of(sample, row, self.columns) for row, sample in enumerate(samples)]
        keys = [content_hash(self.url, self.version, one) for one in shown]
        known = self._cache.get(keys) if self._cache is not None and keys else {}
        questions = {
            key: (key, one, sample)
            for key, one, sample in zip(keys, shown, samples, strict=True)
            if key not in known
        }
        for replies in self._ask(list(questions.values())):
            known |= replies
        scores = [math.nan if known[key] is None else known[key] for key in keys]
        return torch.tensor(scores, dtype=torch.float32)

    def _ask(self, questions: Sequence[Question]) -> list[dict[str, float | None]]:
        """The replies to all of these by key, batch by batch; each is kept as soon as it is there."""
        starts = range(0, len(questions), self.batch_size)
        batches = [questions[start : start + self.batch_size] for start in starts]
        if not batches:
            return []
        with self._exchange.connected() as post:
            answer = partial(self._answer, post, note_retry())
            return in_threads(answer, batches, self.concurrency)

    def _answer(
        self,
        post: Callable[[Sequence[dict[str, Any]]], list[float | None]],
        note: Callable[[], None],
        batch: Sequence[Question],
    ) -> dict[str, float | None]:
        tried = 0

        def attempt() -> list[float | None]:
            nonlocal tried
            tried += 1
            return post([shown for _, shown, _ in batch])

        try:
            scores = retried(
                attempt,
                attempts=self.attempts,
                wait=1.0 if self.wait is None else self.wait,
                needed_by="reward=http with reward.attempts above 1",
                before_retry=note,
            )
        except SourceFailure as failure:
            times = f", tried {tried} times" if tried > 1 else ""
            asked = counted([sample for _, _, sample in batch])
            raise SourceFailure(f"{failure}; asked about {asked}{times}", failure.retry_after) from failure
        replies = {key: score for (key, _, _), score in zip(batch, scores, strict=True)}
        return replies if self._cache is None else self._cache.put(replies)


def _check_url(url: str) -> None:
    """Refuse what is no address of a server, and secrets in it, without repeating them."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number, brackets that do not close
        known = False
    if not known:
        raise UserError("reward.url: expected http://HOST/PATH or https://HOST/PATH")
    if "@" in parts.netloc:
        raise UserError(
            "reward.url: leave user and password out, for a config is written down; "
            "reward.token_env names an environment variable that holds a token"
        )
