"""What keeps a judged text from talking to the judge, and from being praised for nothing."""

from __future__ import annotations

import hashlib
import re
import unicodedata

KEYS = (
    *("thought process", "solution", "answer", "final answer", "explanation", "reasoning", "analysis"),
    *("let s solve this problem step by step", "let s think step by step", "the answer is"),
    *("解", "解答", "かいせつ", "答え", "respuesta", "solución", "lösung", "réponse"),
)
"""Openings after which nothing comes. Judges that are language models have been seen to give them full marks
("master keys", Zhao et al. 2025, arXiv:2507.08794), as they have been to a lone colon."""

NO_CONTENT = ("P", "Z", "C", "Sm", "Sk")
"""Kinds of characters that say nothing by themselves: punctuation, blanks, controls, signs like + and ^."""


def is_hollow(response: str) -> bool:
    """Whether a response says nothing: no character of content, or a known opening and nothing else.

    >>> [is_hollow(text) for text in ("", " :\\n", "Thought process:", "**Solution**", "解")]
    [True, True, True, True, True]
    >>> [is_hollow(text) for text in ("4", "Solution: 4", "😀")]
    [False, False, False]
    """
    kinds = (unicodedata.category(letter) for letter in response)
    if all(kind.startswith(NO_CONTENT) for kind in kinds):
        return True
    return " ".join(re.findall(r"\w+", response.casefold())) in KEYS


def fence(*texts: str) -> str:
    """A mark to put around texts, which looks drawn by chance and stands in none of them.

    It depends on all of the texts, so that none can be written around it, and on nothing else, so that the
    same question is the same again and its reply can be kept.

    >>> fence("Hi") == fence("Hi"), fence("Hi") == fence("Ho"), len(fence("Hi"))
    (True, False, 16)
    """
    said = "\n".join(f"{len(text)}:{text}" for text in texts)
    turn = 0
    while True:
        digest = hashlib.sha256(f"{turn}\n{said}".encode("utf-8", "backslashreplace"))
        mark = digest.hexdigest()[:16]
        if mark not in said:
            return mark
        turn += 1
