"""What a judge is: a language model that is asked questions and says how sure it is of its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question to a judge.

    With `words` the answer is to be one of them, and a judge that knows says how probable each is; without,
    it is a text.
    """

    system: str  # what the judge is to do
    user: str  # what it is shown
    words: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)  # that stand in `user`, by name, such as PROMPT

    @property
    def messages(self) -> list[dict[str, str]]:
        """The question as a conversation."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a judge said to one question."""

    text: str
    weights: Mapping[str, float] | None = None  # probability of each word; null: the judge does not tell
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Judge(Protocol):
    """Who judges. The same question has the same answer, whatever is asked beside it."""

    @property
    def label(self) -> str:
        """What messages and raters' lists call it, such as the name of its model."""
        ...

    def __call__(self, questions: Sequence[Question]) -> Sequence[Reply]:
        """A reply to each question.

        Raises:
            feedtune.rewards.SourceFailure: there is no reply to some; it may pass.
            feedtune.errors.UserError: it refuses what it was asked, or may not spend more.
        """
        ...

    def counts(self) -> Mapping[str, float]:
        """What it has counted since it was last asked, by name: always the same names."""
        ...
