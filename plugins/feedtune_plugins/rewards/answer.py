"""Whether a response gives the right answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from feedtune_plugins.rewards.keywords import canonical
from feedtune_plugins.rewards.references import ReferenceReward

MINUS = "\N{MINUS SIGN}"
NUMBER = re.compile(
    r"(?:(?<![\w)])[-\u2212])?"  # a sign (a hyphen or a real minus), not the minus of 22-5
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"  # 1,234 or 1234; "1, 2" and "1,23" are two numbers
    r"(?:\.\d+)?"  # the full stop of "19." is none of it
)


@dataclass(kw_only=True)
class Answer(ReferenceReward):
    """1 for the right answer, 0 for a wrong one or none; NaN where the row has no reference.

    A number is right if it is the last one that the response says: "17 + 5 = 22." answers 22 and so does
    "22", but "22 or 23" doesn't. Numbers are compared by value: 1,234 is 1234 and 19.0 is 19. Any other
    reference has to be the whole response, upper case, spaces and a closing full stop apart. Of several
    references one is enough.

    Args:
        column: the column with the right answers: a text or a list of texts.

    >>> from feedtune.contracts import Sample
    >>> right = {"reference": "22"}
    >>> Answer()([Sample("17 + 5?", "17 + 5 = 22.", columns=right), Sample("17 + 5?", "12", columns=right)])
    tensor([1., 0.])
    """

    def score(self, response: str, references: Sequence[str]) -> float:
        said = last_number(response)
        return float(any(is_answer(response, said, reference) for reference in references))


def is_answer(response: str, said: Decimal | None, reference: str) -> bool:
    """Whether a response, of which `said` is the last number, gives the answer `reference`."""
    if NUMBER.fullmatch(reference.strip()):
        return said is not None and said == last_number(reference)
    return plain(response) == plain(reference)


def last_number(text: str) -> Decimal | None:
    """The last number in a text; None where there is none.

    >>> last_number("12 - 17 = -5."), last_number("1,234 pounds"), last_number("none")
    (Decimal('-5'), Decimal('1234'), None)
    """
    found = NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "").replace(MINUS, "-")) if found else None


def plain(text: str) -> str:
    """A text without case, spaces around it and a closing full stop.

    >>> plain(" Paris. ")
    'paris'
    """
    return canonical(text, case_sensitive=False).rstrip(".").rstrip()
