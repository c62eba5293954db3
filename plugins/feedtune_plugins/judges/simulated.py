"""A judge of which everything is known: it stands in for a language model in tests and experiments."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from feedtune.checks import check_positive, check_unit
from feedtune.contracts import RewardSource, Sample
from feedtune.errors import UserError
from feedtune.judging import Question, Reply
from feedtune.rewards import call_source

UNREADABLE = "That is hard to say."


@dataclass(kw_only=True)
class Simulated:
    """Judges by a hidden reward, whatever the rubric asks, with the faults that language models have.

    Of two responses worth u and v, the one that is shown first is better with probability
    sigmoid((u - v) / temperature + leaning). The level of one response spreads around its worth. What it says
    depends on the question alone. It writes no texts.

    Args:
        hidden: the reward that it goes by.
        worst: hidden reward of the lowest level.
        best: hidden reward of the highest level; what lies between is spread evenly.
        temperature: of comparisons, in units of the hidden reward: the higher, the less sure.
        spread: of ratings, in levels: the higher, the less sure.
        leaning: liking for the response that is shown first, in units of the logit; below 0: dislike.
        silent: share of questions, in [0, 1], that are answered by what is no answer.

    Raises:
        UserError: a value is out of range; at a call, it is to write a text.
    """

    hidden: RewardSource
    worst: float = -1.0
    best: float = 1.0
    temperature: float = 0.25
    spread: float = 0.5
    leaning: float = 0.5
    silent: float = 0.0

    def __post_init__(self) -> None:
        if not self.worst < self.best:
            raise UserError(f"judge.best: expected more than judge.worst={self.worst}, got {self.best}")
        check_positive("judge.temperature", self.temperature)
        check_positive("judge.spread", self.spread)
        check_unit("judge.silent", self.silent)
        self._asked = 0

    @property
    def label(self) -> str:
        """Always the same."""
        return "simulated"

    def __call__(self, questions: Sequence[Question]) -> list[Reply]:
        """A reply to each question."""
        self._asked += len(questions)
        return [self._reply(one) for one in questions]

    def counts(self) -> dict[str, float]:
        """requests since they were last taken; it has no tokens and costs nothing."""
        found, self._asked = self._asked, 0
        return {"requests": float(found), "tokens": 0.0, "cost": 0.0}

    def _reply(self, question: Question) -> Reply:
        if not question.words:
            raise UserError("judge=simulated: it writes no texts; choose another judge for that")
        shown = [text for name, text in question.texts.items() if name.startswith("RESPONSE")]
        prompt = question.texts.get("PROMPT", "")
        worths = call_source(self.hidden, [Sample(prompt, text) for text in shown]).total.tolist()
        if _chance(question) < self.silent or any(map(math.isnan, worths)):
            return Reply(text=UNREADABLE)
        weights = self._choice(worths) if len(worths) > 1 else self._levels(worths[0], len(question.words))
        found = dict(zip(question.words, weights, strict=True))
        return Reply(text=max(found, key=lambda word: found[word]), weights=found)

    def _choice(self, worths: Sequence[float]) -> list[float]:
        """The probabilities of the first and of the second response."""
        logit = (worths[0] - worths[1]) / self.temperature + self.leaning
        first = 1 / (1 + math.exp(-max(-700.0, min(700.0, logit))))
        return [first, 1 - first]

    def _levels(self, worth: float, count: int) -> list[float]:
        """The probability of each level: normal around the place of the worth between worst and best."""
        share = min(1.0, max(0.0, (worth - self.worst) / (self.best - self.worst)))
        place = share * (count - 1)
        heights = [-(((level - place) / self.spread) ** 2) / 2 for level in range(count)]
        likely = [math.exp(height - max(heights)) for height in heights]
        return [one / sum(likely) for one in likely]


def _chance(question: Question) -> float:
    """A number in [0, 1) that depends on the question alone."""
    said = f"{question.system}\n{question.user}".encode("utf-8", "backslashreplace")
    return int.from_bytes(hashlib.sha256(said).digest()[:6], "big") / 2**48
