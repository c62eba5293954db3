"""A codec over a handful of words, and policies that say what they are told to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from feedtune.contracts import Sample, Scores
from feedtune.policy import Policy
from feedtune.text.codec import Codec
from feedtune_plugins.backbones.ngram import NGram

WORDS = ["<eos>", "<unk>", "a", "b", "c", "d", "e", "f"]
ID = {word: number for number, word in enumerate(WORDS)}
EOS = ID["<eos>"]


def make_codec(**options: Any) -> Codec:
    """Words between blanks; no token for pads, so pads are end-of-text tokens."""
    tokenizer = Tokenizer(models.WordLevel(ID, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")
    return Codec(fast, **options)


class Judge:
    """A reward source that remembers what it was shown and gives prepared scores in turn."""

    def __init__(self, scores: Sequence[float], parts: Mapping[str, Sequence[float]] | None = None) -> None:
        self.scores, self.parts = scores, parts or {}
        self.shown: list[Sample] = []

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        self.shown.extend(samples)
        count = len(samples)
        parts = {name: torch.tensor(list(part)[:count]) for name, part in self.parts.items()}
        return Scores(torch.tensor(list(self.scores)[:count]), parts)


def saying(following: Mapping[str, str]) -> Policy:
    """A policy that after each word says one other with certainty."""
    backbone = NGram(vocab_size=len(WORDS), n=2)
    for word, following_word in following.items():
        backbone.table.weight.data[ID[word] + 1] = -torch.inf
        backbone.table.weight.data[ID[word] + 1, ID[following_word]] = 0.0
    return Policy(backbone).eval()


def babbling() -> Policy:
    """A policy with random probabilities, of which the end is one of eight."""
    backbone = NGram(vocab_size=len(WORDS), n=2)
    backbone.table.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    return Policy(backbone).eval()


class Kit:
    """What the tests of collectors share."""

    words, ids, eos = WORDS, ID, EOS
    codec = staticmethod(make_codec)
    judge = Judge
    saying = staticmethod(saying)
    babbling = staticmethod(babbling)

    @staticmethod
    def generator(seed: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    """The toolbox."""
    return Kit
