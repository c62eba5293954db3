"""Reading a judge's reply: one of the words that it was given, or nothing that counts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from feedtune.judging.contract import Reply

THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
"""What models that think first say before their answer, where the server leaves it in."""

LOOKED_AT = 200
"""Letters of a reply's first line: whatever a server sends, reading it takes no time."""


def word_of(text: str, words: Sequence[str]) -> str | None:
    """The word that a reply says; None: none of them.

    The first line must begin with it, but for marks around it and a phrase such as "The score is"; what
    follows stands behind a colon, a point or the like. A number elsewhere in a sentence is no answer: it may
    be quoted from what is judged.

    >>> [word_of(text, ("1", "2")) for text in ("2", " **2**.", "The score is 2", '{"score": 2}', "2: brief")]
    ['2', '2', '2', '2', '2']
    >>> [word_of(text, ("1", "2")) for text in ("12", "It could be 2", "3", "", "2 of 1", "1.5")]
    [None, None, None, None, None, None]
    >>> word_of("<think>1 or 2?</think>\\n2", ("1", "2"))
    '2'
    """
    lines = [line for line in THOUGHTS.sub("", text).splitlines() if line.strip()]
    if not lines:
        return None
    known = "|".join(map(re.escape, words))
    phrase = r"(?:(?:the|my|score|rating|number|letter|answer|verdict|response|is)\W+){0,4}"
    found = re.fullmatch(rf"\W*{phrase}({known})(?:\W*|\W*[.:)]\W*\s.*)", lines[0][:LOOKED_AT], re.IGNORECASE)
    return found and next(word for word in words if word.casefold() == found[1].casefold())


def weights_of(reply: Reply, words: Sequence[str]) -> dict[str, float] | None:
    """How the reply spreads over the words, in sum 1; None: it is no answer.

    Where the judge does not say how probable each word is, all is on the one that it said.

    >>> weights_of(Reply(text="2", weights={"1": 0.125, "2": 0.375}), ("1", "2"))
    {'1': 0.25, '2': 0.75}
    >>> weights_of(Reply(text="2"), ("1", "2")), weights_of(Reply(text="two"), ("1", "2"))
    ({'1': 0.0, '2': 1.0}, None)
    """
    said = word_of(reply.text, words)
    if said is None:
        return None
    told = reply.weights or {}
    total = sum(told.get(word, 0.0) for word in words)
    if not total > 0:
        return {word: float(word == said) for word in words}
    return {word: told.get(word, 0.0) / total for word in words}


def weights_at(
    tokens: Sequence[tuple[str, Mapping[str, float]]], words: Sequence[str]
) -> dict[str, float] | None:
    """The probability of each word at the token that says one of them.

    Args:
        tokens: of a reply in order: its text, and the probabilities of tokens that could stand there.
        words: such as "1" to "5"; blanks around a token count for nothing.

    >>> weights_at([("Score", {}), (" 2", {" 2": 0.5, "2": 0.1, " 1": 0.2, " x": 0.1})], ("1", "2"))
    {'1': 0.2, '2': 0.6}
    """
    found: dict[str, float] | None = None
    said = ""
    for text, others in tokens:
        said += text
        if found is None and text.strip() in words:
            found = dict.fromkeys(words, 0.0)
            for other, probability in others.items():
                if other.strip() in found:
                    found[other.strip()] += probability
        if said.rstrip().endswith("</think>"):  # what was said before was no answer yet
            found = None
    return found
