"""Critique and revision by a constitution (Bai et al. 2022, arXiv:2212.08073)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from feedtune.contracts import Sample
from feedtune.judging.constitution import Constitution
from feedtune.judging.contract import Judge, Question
from feedtune.judging.questions import conversation, fenced
from feedtune.judging.reading import THOUGHTS


@dataclass(frozen=True)
class Revision:
    """What became of a response."""

    text: str  # empty: the judge said nothing
    critiques: tuple[str, ...]  # one a round
    principles: tuple[str, ...]  # by which each was written


def revised(judge: Judge, constitution: Constitution, samples: Sequence[Sample]) -> list[Revision]:
    """Every response criticised by a principle and written anew, as many times as there are rounds."""
    found = [Revision(sample.response, (), ()) for sample in samples]
    for turn in range(constitution.rounds):
        now = [replace(s, response=one.text) for s, one in zip(samples, found, strict=True)]
        drawn = [constitution.drawn(f"{s.prompt}\n{s.response}", turn) for s in samples]
        pairs = list(zip(now, drawn, strict=True))
        critiques = _texts(judge, [critique(sample, principle) for sample, principle in pairs])
        texts = _texts(
            judge, [revision(s, rule, said) for (s, rule), said in zip(pairs, critiques, strict=True)]
        )
        found = [
            Revision(text, (*before.critiques, said), (*before.principles, rule))
            for before, text, said, rule in zip(found, texts, critiques, drawn, strict=True)
        ]
    return found


def critique(sample: Sample, principle: str) -> Question:
    """What is wrong with a response, by a principle.

    >>> "Be kind." in critique(Sample("Hi", "Go away."), "Be kind.").system
    True
    """
    asked = (
        f"You criticise a response to a prompt by one principle: {principle}\n"
        "Say in a few sentences where the response breaks it; where it does not, say so."
    )
    parts = _parts(sample)
    system, user = fenced(asked, parts)
    return Question(system=system, user=f"{user}\n\nThe critique:", texts=parts)


def revision(sample: Sample, principle: str, critique: str) -> Question:
    """A response written anew, after a critique of it.

    >>> "rude" in revision(Sample("Hi", "Go away."), "Be kind.", "It is rude.").user
    True
    """
    asked = (
        f"You improve a response to a prompt by one principle: {principle}\n"
        "Take the critique into account. Write the whole response anew, and nothing else."
    )
    parts = {**_parts(sample), "CRITIQUE": critique}
    system, user = fenced(asked, parts)
    return Question(system=system, user=f"{user}\n\nThe new response:", texts=parts)


def _parts(sample: Sample) -> dict[str, str]:
    said = conversation(sample.messages) if sample.messages else sample.prompt
    return {"PROMPT": said, "RESPONSE": sample.response}


def _texts(judge: Judge, questions: Sequence[Question]) -> list[str]:
    return [THOUGHTS.sub("", reply.text).strip() for reply in judge(questions)]
