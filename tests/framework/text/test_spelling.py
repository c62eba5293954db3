"""The texts of single tokens: together they are the text, and none of them hides."""

from __future__ import annotations

import pytest

from feedtune.text.codec import Codec
from feedtune.text.spelling import Spelling

TEXTS = ["Hello there", "a  b\n\nc", "naïve 你好 👩\u200d🚀!", ""]


@pytest.mark.parametrize("name", ["chatml", "inst", "metaspace", "gpt2"])
@pytest.mark.parametrize("text", TEXTS)
def test_together_they_are_the_text(name: str, text: str, codecs: dict[str, Codec]) -> None:
    codec = codecs[name]
    tokens = codec.tokenizer.encode(text, add_special_tokens=False)
    special = set(codec.tokenizer.all_special_ids)  # metaspace has none of these characters
    spelling = Spelling(codec)(tokens)
    assert len(spelling) == len(tokens)
    known = [piece for piece, token in zip(spelling, tokens, strict=True) if token not in special]
    assert "".join(known) == codec.decode(tokens)
    assert "\ufffd" not in "".join(known)


def test_words_keep_their_blanks_where_a_token_alone_has_none(codecs: dict[str, Codec]) -> None:
    codec = codecs["metaspace"]
    tokens = codec.tokenizer.encode("a b", add_special_tokens=False)
    assert codec.decode(tokens[1:]) == "b"  # alone it is stripped
    assert "".join(Spelling(codec)(tokens)[1:]) == " b"


def test_the_last_token_of_a_character_has_it(codecs: dict[str, Codec]) -> None:
    codec = codecs["gpt2"]
    tokens = codec.tokenizer.encode("🚀!", add_special_tokens=False)
    assert len(tokens) == 5  # four bytes and the mark
    assert Spelling(codec)(tokens) == ["", "", "", "🚀", "!"]


def test_bytes_that_make_no_character_are_told_too(codecs: dict[str, Codec]) -> None:
    codec = codecs["gpt2"]
    tokens = codec.tokenizer.encode("🚀", add_special_tokens=False)
    assert Spelling(codec)(tokens[:2]) == ["", "\ufffd"]  # cut off by the length limit
    spelling = Spelling(codec)([tokens[1]] * 6)
    assert (len(spelling), "".join(spelling)) == (6, "\ufffd" * 6)


def test_special_tokens_are_told_by_name(codecs: dict[str, Codec]) -> None:
    codec = codecs["chatml"]
    tokens = [*codec.tokenizer.encode("🚀 hi", add_special_tokens=False), *codec.eos_ids]
    spelling = Spelling(codec)(tokens)
    assert spelling[-1] == "<|im_end|>"
    assert "".join(spelling[:-1]) == "🚀 hi"
