"""Ways to cut text into what a metric counts."""

from __future__ import annotations

import unicodedata
from typing import Literal

Unit = Literal["words", "characters"]
UNITS = ("words", "characters")


def units(text: str, unit: Unit) -> list[str]:
    """Words between whitespace, or all characters but whitespace.

    Characters suit scripts that put no spaces between words, such as Chinese, Japanese and Thai.

    >>> units("Hi, you!", "words")
    ['Hi,', 'you!']
    >>> units("Hi, you!", "characters")
    ['H', 'i', ',', 'y', 'o', 'u', '!']
    """
    words = text.split()
    return words if unit == "words" else list("".join(words))


def is_word_character(character: str) -> bool:
    """Whether this is a letter, a digit or an accent of any alphabet; `""` is none.

    >>> [is_word_character(c) for c in ("a", "é", "好", "7", "_", "-", " ", "")]
    [True, True, True, True, False, False, False, False]
    """
    return character != "" and unicodedata.category(character)[0] in "LMN"


def letters_and_digits(text: str, unit: Unit) -> list[str]:
    """Runs of letters and digits of any alphabet, or each of these characters.

    On ASCII text the words are those of the usual ROUGE tokeniser, which drops every other alphabet.

    >>> letters_and_digits("Don't say café_2!", "words")
    ['Don', 't', 'say', 'café', '2']
    """
    kept = "".join(character if is_word_character(character) else " " for character in text)
    return units(kept, unit)
