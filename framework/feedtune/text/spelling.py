"""The text of single tokens, for people who look at what each of them earned."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from feedtune.text.codec import Codec
from feedtune.text.tokenizer_facts import special_ids

_PART = "\ufffd"  # what decoding a part of a character gives
_LONGEST = 4  # tokens of a character: it has so many bytes at most


class Spelling:
    """Says the text of each token of a response, so that all of them together are the response's text.

    A special token is said by its name, as in "<|endoftext|>". Where only several tokens make a character,
    the last of them has it and the others are "".

    Args:
        codec: the run's.
    """

    def __init__(self, codec: Codec) -> None:
        self._decode = codec.decode
        tokenizer = codec.tokenizer
        self._names = {i: str(tokenizer.convert_ids_to_tokens(i)) for i in special_ids(tokenizer)}
        self._alone = cache(lambda token: self._decode([token]))

    def __call__(self, tokens: Sequence[int]) -> list[str]:
        """One text a token."""
        texts = [self._alone(token) for token in tokens]
        if "".join(texts) != self._decode(tokens):  # they are spelt otherwise among others
            texts = self._in_turn(tokens)
        return [self._names.get(token, text) for token, text in zip(tokens, texts, strict=True)]

    def _in_turn(self, tokens: Sequence[int]) -> list[str]:
        """What each token adds to the ones before it."""
        texts: list[str] = []
        context = start = 0  # tokens[context:start] have been told, and are what the next ones follow
        for end in range(1, len(tokens) + 1):
            whole, told = self._decode(tokens[context:end]), self._decode(tokens[context:start])
            if whole.endswith(_PART) and end - start < _LONGEST and end < len(tokens):
                texts.append("")
                continue
            texts.append(whole[len(told) :])
            if texts[-1]:  # what leaves no text, as a special token, is nothing to follow
                context = start
            start = end
        return texts
