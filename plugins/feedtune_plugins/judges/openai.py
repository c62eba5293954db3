"""A judge behind an OpenAI-compatible endpoint: hosted, vLLM, llama.cpp, `transformers serve`."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from feedtune.checks import check_not_negative, check_positive, check_used
from feedtune.errors import UserError
from feedtune.judging import Question, Reply, weights_at
from feedtune.rewards import SourceFailure, shortened
from feedtune_plugins.judges.ledger import Ledger
from feedtune_plugins.remote.exchange import Post, shown
from feedtune_plugins.remote.reply_cache import content_hash
from feedtune_plugins.remote.service import Service
from feedtune_plugins.rewards.checks import at_least

MILLION = 1e6

MOST_TOKENS = 10**9
"""Of a request; a server that says more says nothing."""


@dataclass(kw_only=True)
class OpenAI:
    """Chat completions at `URL/chat/completions`, at temperature 0.

    A request that is not answered, or answered by 408, 425, 429, 5xx or what is no chat completion, is tried
    again; 429 and 503 may say when (Retry-After). Other answers than 2xx refuse what was asked.

    Args:
        url: up to `/v1`.
        model: name of the model, as the server calls it.
        answer_tokens: most tokens of an answer of one word; more for models that think first.
        text_tokens: most tokens of a text, such as a critique.
        top_logprobs: of how many of the most probable tokens the server is asked for the probability, for
            weighted scores; null: it is not asked. Where none come back, the word counts that is said.
        concurrency: requests at a time.
        timeout: seconds from a request to the end of its answer.
        attempts: times that a request is tried.
        wait: seconds before the second attempt, doubled before each further one up to a minute; null: 1.
        token_env: name of the environment variable whose value is sent as `Authorization: Bearer VALUE`.
        cache: SQLite file in which replies are kept, so that nothing is asked twice; null: none.
        version: of the model; another one is asked anew about what is in the cache.
        prompt_price: what a million tokens of questions cost.
        completion_price: what a million tokens of answers cost, in the same money.
        budget: most that may be spent, in that money: before each request it is looked whether it has been.
            Requests that are under way then are still paid. null: no limit.
        ledger: file that notes what each request cost, so that the budget holds over restarts; null: none.

    Raises:
        UserError: an option is out of range, or the extra `remote` is not installed.
    """

    url: str
    model: str
    answer_tokens: int = 8
    text_tokens: int = 512
    top_logprobs: int | None = 20
    concurrency: int = 8
    timeout: float = 60.0
    attempts: int = 5
    wait: float | None = None
    token_env: str | None = None
    cache: str | None = None
    version: str | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0
    budget: float | None = None
    ledger: str | None = None
    needs_trust: ClassVar[tuple[str, ...]] = ("url", "token_env")

    def __post_init__(self) -> None:
        self._service = Service(
            group="judge",
            needed_by="judge=openai",
            url=self.url,
            post_to="/chat/completions",
            batch_size=1,
            concurrency=self.concurrency,
            timeout=self.timeout,
            attempts=self.attempts,
            wait=self.wait,
            token_env=self.token_env,
            cache=self.cache,
        )
        at_least("judge.answer_tokens", self.answer_tokens, 1)
        at_least("judge.text_tokens", self.text_tokens, 1)
        if self.top_logprobs is not None:
            at_least("judge.top_logprobs", self.top_logprobs, 1)
        check_used("judge.version", self.version, self.cache is not None, "judge.cache")
        for name in ("prompt_price", "completion_price"):
            check_not_negative(f"judge.{name}", getattr(self, name))
        if self.budget is not None:
            check_positive("judge.budget", self.budget)
        priced = self.prompt_price + self.completion_price > 0
        check_used("judge.budget", self.budget, priced, "judge.prompt_price or judge.completion_price")
        self._ledger = Ledger(self.ledger if priced else None)
        self._counts = dict.fromkeys(("requests", "tokens", "cost"), 0.0)
        self._lock = threading.Lock()

    @property
    def label(self) -> str:
        """The model's name."""
        return self.model

    def __call__(self, questions: Sequence[Question]) -> list[Reply]:
        """A reply to each question; equal questions are asked once."""
        bodies = [self._body(one) for one in questions]
        both = list(zip(bodies, questions, strict=True))
        keys = [content_hash(self.url, self.version, body, list(one.words)) for body, one in both]
        asked = dict(zip(keys, both, strict=True))
        known = self._service.replies(asked, self._ask, _described)
        return [Reply(**known[key]) for key in keys]

    def counts(self) -> dict[str, float]:
        """requests that were answered, tokens (of questions and answers) and cost since they were taken."""
        with self._lock:
            found, self._counts = self._counts, dict.fromkeys(self._counts, 0.0)
        return found

    def _body(self, question: Question) -> dict[str, Any]:
        """What is sent."""
        said: dict[str, Any] = {
            "model": self.model,
            "messages": question.messages,
            "temperature": 0.0,
            "max_tokens": self.answer_tokens if question.words else self.text_tokens,
        }
        if question.words and self.top_logprobs is not None:
            said |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        return said

    def _ask(self, post: Post, batch: Sequence[tuple[dict[str, Any], Question]]) -> list[dict[str, Any]]:
        return [self._one(post, body, question) for body, question in batch]

    def _one(self, post: Post, body: dict[str, Any], question: Question) -> dict[str, Any]:
        self._check_budget()
        try:
            answer = post(body)
        except SourceFailure:
            raise
        except UserError as error:
            if "logprobs" in body and "logprobs" in str(error):
                raise UserError(
                    f"{error}; a server without logprobs needs judge.top_logprobs=null"
                ) from error
            raise
        prompt_tokens, completion_tokens = _usage(answer)
        self._note(prompt_tokens, completion_tokens)  # paid for, whether it can be read or not
        choice = _choice(answer, self._service.label)
        reply = Reply(
            text=_text(choice, self._service.label),
            weights=weights_at(_tokens(choice), question.words) if question.words else None,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
        )
        return asdict(reply)

    def _check_budget(self) -> None:
        if self.budget is None:
            return
        spent = self._ledger.total()
        if spent >= self.budget:
            kept = f" (noted in {self.ledger})" if self.ledger else ""
            raise UserError(
                f"judge.budget: {spent:g} of {self.budget:g} has been spent{kept}; raise it to go on, "
                "nothing in the cache is paid for again"
            )

    def _note(self, prompt_tokens: int, completion_tokens: int) -> None:
        cost = (self.prompt_price * prompt_tokens + self.completion_price * completion_tokens) / MILLION
        with self._lock:
            self._counts["requests"] += 1
            self._counts["tokens"] += prompt_tokens + completion_tokens
            self._counts["cost"] += cost
        if cost:
            tokens = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
            self._ledger.add({"model": self.model, **tokens, "cost": cost})


def _described(batch: Sequence[tuple[dict[str, Any], Question]]) -> str:
    return f"what begins {shortened(batch[0][1].user)}"


def _usage(answer: Any) -> tuple[int, int]:
    """Tokens of the question and of the answer; 0 where the server does not say."""
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    said = usage if isinstance(usage, Mapping) else {}
    found = [said.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (
        one if isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= MOST_TOKENS else 0
        for one in found
    )
    return prompt, completion


def _choice(answer: Any, label: str) -> Mapping[str, Any]:
    """The first choice of a chat completion.

    Raises:
        SourceFailure: it is something else.
    """
    choices = answer.get("choices") if isinstance(answer, Mapping) else None
    if not (isinstance(choices, list) and choices and isinstance(choices[0], Mapping)):
        raise SourceFailure(f'{label}: expected {{"choices": [...]}}: {shown(json.dumps(answer))}')
    return choices[0]


def _text(choice: Mapping[str, Any], label: str) -> str:
    """What it says; null, as of a model that was cut off while it thought, is nothing."""
    message = choice.get("message")
    content = message.get("content", 0) if isinstance(message, Mapping) else 0
    if not isinstance(content, str | None):
        raise SourceFailure(
            f'{label}: expected {{"message": {{"content": ...}}}}: {shown(json.dumps(choice))}'
        )
    return content or ""


def _tokens(choice: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """The tokens of a choice, each with the probabilities of those that could stand there; or none."""
    told = choice.get("logprobs")
    content = told.get("content") if isinstance(told, Mapping) else None
    return (
        [_token(one) for one in content or () if isinstance(one, Mapping)]
        if isinstance(content, list)
        else []
    )


def _token(said: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    others = said.get("top_logprobs")
    pairs = [
        (one.get("token"), one.get("logprob"))
        for one in (said, *(others if isinstance(others, list) else ()))
        if isinstance(one, Mapping)
    ]
    likely = {
        token: math.exp(min(0.0, value))
        for token, value in pairs
        if isinstance(token, str) and isinstance(value, int | float)
    }
    return str(said.get("token", "")), likely
