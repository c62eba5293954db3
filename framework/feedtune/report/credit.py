"""Per-token credit as colour: blue where a token earned something, orange where it cost, by how much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from feedtune.report.numerals import number
from feedtune.report.reading import Answer
from feedtune.text.visible import plain

NEW_LINE = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"
PART = "\N{MIDDLE DOT}"  # a token that is a part of a character: the last token of the character has it
BLANKS = str.maketrans({" ": "\N{OPEN BOX}", "\n": NEW_LINE, "\t": "\N{RIGHTWARDS ARROW TO BAR}"})


def spelled(token: str) -> str:
    """A token where nothing stands around it: its blanks are marked.

    >>> spelled(" yes\\n"), spelled("")
    ('␣yes↵', '·')
    """
    return token.translate(BLANKS) or PART


@dataclass(frozen=True)
class Shade:
    """A token and its colour."""

    text: str
    sign: str  # "up" above 0, "down" below, "zero", or "untold" where it has no number
    strength: float  # from 0 to 1, of the widest number
    title: str  # the token and its number, shown when it is pointed at


def widest(answers: Sequence[Answer], name: str) -> float:
    """The largest number of that name by size in any of these answers; 0 where there is none."""
    values = [v for answer in answers if answer.credit for v in answer.credit.values.get(name, ())]
    return max((abs(value) for value in values if not math.isnan(value)), default=0.0)


def strip(answer: Answer, name: str, most: float) -> Iterator[Shade]:
    """The answer's tokens in the colours of these numbers; `most`, the widest of all, has the full colour.

    >>> from feedtune.report.reading import Credit
    >>> answer = Answer("a", "b", 1.0, credit=Credit(["no", "!"], {"kl": [-0.5, math.nan]}))
    >>> [(shade.sign, shade.strength, shade.title) for shade in strip(answer, "kl", 2.0)]
    [('down', 0.25, 'no: −0.5'), ('untold', 0.0, '!: –')]
    """
    if answer.credit is None:
        return
    for text, value in zip(answer.credit.tokens, answer.credit.values[name], strict=True):
        sign = "untold" if math.isnan(value) else "up" if value > 0 else "down" if value < 0 else "zero"
        strength = abs(value) / most if sign in ("up", "down") else 0.0
        shown = text.replace("\n", f"{NEW_LINE}\n") or PART
        yield Shade(shown, sign, strength, f"{plain(spelled(text))}: {number(value)}")
