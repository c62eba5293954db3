"""A service that questions are put to: batches, threads, attempts, and a cache of what it replied."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from feedtune.checks import check_positive, check_used
from feedtune.errors import UserError
from feedtune.rewards import SourceFailure, check_tenacity, in_threads, note_retry, retried
from feedtune_plugins.remote.exchange import Exchange, Post
from feedtune_plugins.remote.reply_cache import ReplyCache
from feedtune_plugins.rewards.checks import at_least

Q = TypeVar("Q")

Ask = Callable[[Post, Sequence[Q]], Sequence[Any]]
"""Puts a batch of questions to the service and gives a reply to each, as values that JSON can say.

Raises `SourceFailure` where the reply is none: it is tried again.
"""


@dataclass(kw_only=True)
class Service:
    """Questions with a key each go to a URL; their replies come back, and are kept.

    Args:
        group: key of its options, such as "reward", for messages.
        needed_by: the choice that needs the packages, such as "reward=http".
        url: where to; for messages, and with `post_to` for requests.
        batch_size: questions of a request.
        concurrency: requests at a time.
        timeout: seconds from a request to the end of its answer.
        attempts: times that a request is tried.
        wait: seconds before the second attempt, doubled before each further one up to a minute; null: 1.
        token_env: name of the environment variable with the token, if one is needed.
        cache: SQLite file in which replies are kept; null: none.
        post_to: path that is added to `url`.

    Raises:
        UserError: an option is out of range, or the extra `remote` is not installed.
    """

    group: str
    needed_by: str
    url: str
    batch_size: int
    concurrency: int
    timeout: float
    attempts: int
    wait: float | None
    token_env: str | None
    cache: str | None
    post_to: str = ""

    def __post_init__(self) -> None:
        group = self.group
        check_url(f"{group}.url", self.url, f"{group}.token_env")
        for name, value in {"batch_size": self.batch_size, "concurrency": self.concurrency}.items():
            at_least(f"{group}.{name}", value, 1)
        at_least(f"{group}.attempts", self.attempts, 1)
        check_positive(f"{group}.timeout", self.timeout)
        if self.wait is not None:
            at_least(f"{group}.wait", self.wait, 0)
        check_used(f"{group}.wait", self.wait, self.attempts > 1, f"{group}.attempts above 1")
        self._tries = f"{self.needed_by} with {group}.attempts above 1"
        if self.attempts > 1:
            check_tenacity(self._tries)
        self._exchange = Exchange(
            label=self.label,
            group=group,
            needed_by=self.needed_by,
            url=f"{self.url.rstrip('/')}{self.post_to}" if self.post_to else self.url,
            timeout=self.timeout,
            connections=self.concurrency,
            token_env=self.token_env,
        )
        self._cache = None if self.cache is None else ReplyCache(self.cache, f"{group}.cache")

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.group}.url={self.url}"

    def replies(
        self, questions: Mapping[str, Q], ask: Ask[Q], described: Callable[[Sequence[Q]], str]
    ) -> dict[str, Any]:
        """A reply to every question, by its key; what the cache knows is not asked.

        Args:
            questions: by a key that says all that the reply depends on (`content_hash`).
            ask: puts a batch of them to the service; called by several threads.
            described: how messages call a batch.

        Raises:
            SourceFailure: no attempt brought replies.
            UserError: the service refuses what it was asked.
        """
        known = self._cache.get(list(questions)) if self._cache is not None and questions else {}
        left = [(key, one) for key, one in questions.items() if key not in known]
        batches = [left[n : n + self.batch_size] for n in range(0, len(left), self.batch_size)]
        if not batches:
            return known
        with self._exchange.connected() as post:
            one_batch = partial(self._batch, partial(ask, post), described, note_retry())
            for found in in_threads(one_batch, batches, self.concurrency):
                known |= found
        return known

    def _batch(
        self,
        ask: Callable[[Sequence[Q]], Sequence[Any]],
        described: Callable[[Sequence[Q]], str],
        note: Callable[[], None],
        batch: Sequence[tuple[str, Q]],
    ) -> dict[str, Any]:
        """The replies to a batch by key, kept as soon as they are there."""
        asked = [question for _, question in batch]
        tried = 0

        def attempt() -> Sequence[Any]:
            nonlocal tried
            tried += 1
            return ask(asked)

        try:
            found = retried(
                attempt,
                attempts=self.attempts,
                wait=1.0 if self.wait is None else self.wait,
                needed_by=self._tries,
                before_retry=note,
            )
        except SourceFailure as failure:
            times = f", tried {tried} times" if tried > 1 else ""
            said = f"{failure}; asked about {described(asked)}{times}"
            raise SourceFailure(said, failure.retry_after) from failure
        replies = {key: reply for (key, _), reply in zip(batch, found, strict=True)}
        return replies if self._cache is None else self._cache.put(replies)


def check_url(key: str, url: str, token_key: str) -> None:
    """Refuse what is no address of a server, and secrets in it, without repeating them.

    >>> check_url("reward.url", "localhost:8000", "reward.token_env")
    Traceback (most recent call last):
    feedtune.errors.UserError: reward.url: expected http://HOST/PATH or https://HOST/PATH
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number, brackets that do not close
        known = False
    if not known:
        raise UserError(f"{key}: expected http://HOST/PATH or https://HOST/PATH")
    if "@" in parts.netloc:
        raise UserError(
            f"{key}: leave user and password out, for a config is written down; "
            f"{token_key} names an environment variable that holds a token"
        )
