"""One writing for what reads alike, so that a filter sees what a person sees.

A policy that is penalised for a word learns whatever spelling of it goes unnoticed.
"""

from __future__ import annotations

import unicodedata

ALIKE = {
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"), "-"),
    **dict.fromkeys(map(ord, "\u2018\u2019\u201b\u02bc\u00b4`"), "'"),
}
UNSEEN = frozenset("\u034f" + "".join(map(chr, range(0xFE00, 0xFE10))))
"""What cannot be seen, beside format characters: the grapheme joiner and the variation selectors."""


def undisguised(text: str) -> str:
    """Text without invisible characters, in plain letters and digits, with one kind of dash and apostrophe.

    Full-width, circled and mathematical letters become ordinary ones (NFKC), digits of any script 0 to 9, any
    whitespace inside of a line one space. Letters of other scripts that only look alike stay, and so does
    "h3llo".

    >>> undisguised("\\uff48e\\u200bllo  I can\\u2019t \\u0664\\u0662")
    "hello I can't 42"
    """
    plain = unicodedata.normalize("NFKC", text.translate(ALIKE))
    kept = "".join(_digit(one) for one in plain if unicodedata.category(one) != "Cf" and one not in UNSEEN)
    return "\n".join(" ".join(line.split()) for line in kept.splitlines())


def _digit(character: str) -> str:
    """A decimal digit of any script as 0 to 9; any other character as it is."""
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)
