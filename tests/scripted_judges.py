"""A judge in memory that answers as a test tells it to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from feedtune.judging import Question, Reply

Say = Callable[[Question], tuple[str, Mapping[str, float] | None]]


class Scripted:
    """Says what the function says of each question: a text, and how probable each word is, if it tells."""

    label = "scripted"

    def __init__(self, say: Say) -> None:
        self.say = say
        self.asked: list[Question] = []

    def __call__(self, questions: Sequence[Question]) -> list[Reply]:
        self.asked += questions
        return [Reply(text=text, weights=weights) for text, weights in map(self.say, questions)]

    def counts(self) -> dict[str, float]:
        return {"requests": float(len(self.asked))}


def texts_in(question: Question) -> dict[str, str]:
    """The texts between marks, by name."""
    found: dict[str, str] = {}
    name = ""
    for line in question.user.splitlines():
        if line.startswith("[/"):
            name = ""
        elif name:
            found[name] = f"{found[name]}\n{line}" if name in found else line
        elif line.startswith("["):
            name = line[1:].rpartition(" ")[0]
    return found
