"""A language model on loopback, behind chat completions, that answers as a test tells it to."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from judges import Answer, Judge, Reply, judging, saying

PROMPT_TOKENS, COMPLETION_TOKENS = 100, 2


def completion(text: str | None, likely: Mapping[str, float] | None = None, **more: Any) -> Reply:
    """A chat completion; `likely`: the probabilities of tokens that could stand in place of its one token."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}}
    if likely is not None:
        top = [{"token": token, "logprob": math.log(p)} for token, p in likely.items()]
        choice["logprobs"] = {
            "content": [{"token": text, "logprob": math.log(likely[text or ""]), "top_logprobs": top}]
        }
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS}
    return saying({"object": "chat.completion", "choices": [choice], "usage": usage}, **more)


@contextmanager
def chatting(*answers: Answer | Reply) -> Iterator[Judge]:
    """A model that listens while the block lasts; `asked` holds whole bodies."""
    with judging(*answers, read=lambda body: body) as judge:
        judge.url = judge.url.replace("/score", "/v1")
        yield judge


def question(body: Mapping[str, Any]) -> tuple[str, str]:
    """What the model is to do, and what it is shown."""
    system, user = body["messages"]
    return system["content"], user["content"]


def parts(body: Mapping[str, Any]) -> dict[str, str]:
    """The texts between marks, by name."""
    found = re.findall(r"^\[([A-Z ]+) ([0-9a-f]{16})\]\n(.*?)\n\[/\1 \2\]$", question(body)[1], re.S | re.M)
    return {name: text for name, _, text in found}


def by_worth(worth: Callable[[str], float], leaning: float = 0.0) -> Callable[[Any], Reply]:
    """A model that knows what a text is worth, in [0, 1], and likes the first of two by `leaning` more.

    Of scores 1 to n it says the two nearest; of A and B, A with the probability
    1/2 + (worth of A - worth of B) / 2 + leaning, between 0.01 and 0.99.
    """

    def answer(body: Any) -> Reply:
        shown = parts(body)
        if "RESPONSE" in shown:
            levels = len(re.findall(r"^\d: ", question(body)[0], re.M))
            return completion(*_score(worth(shown["RESPONSE"]), levels))
        first = 0.5 + (worth(shown["RESPONSE A"]) - worth(shown["RESPONSE B"])) / 2 + leaning
        first = min(0.99, max(0.01, first))
        return completion("A" if first > 0.5 else "B", {"A": first, "B": 1 - first})

    return answer


def _score(worth: float, levels: int) -> tuple[str, dict[str, float]]:
    place = 1 + worth * (levels - 1)
    low = min(int(place), levels - 1)
    likely = {str(low): low + 1 - place, str(low + 1): place - low}
    likely = {word: p for word, p in likely.items() if p > 0}
    return max(likely, key=lambda word: likely[word]), likely


def letters(text: str) -> float:
    """Worth by length: 40 letters are worth 1."""
    return min(1.0, len(text) / 40)


def whatever(body: Any) -> Reply:
    """An opinion of everything, always the same of the same: by its hash."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
    words = ("A", "B") if "RESPONSE A" in parts(body) else ("1", "2", "3", "4", "5")
    likely = {word: (1 + byte) / 256 / len(words) for word, byte in zip(words, digest, strict=False)}
    return completion(max(likely, key=lambda word: likely[word]), likely)
