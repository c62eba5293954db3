"""The smallest backbones that obey the laws, and a codec for them."""

from __future__ import annotations

import string
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from feedtune.contracts import Backbone, State

if TYPE_CHECKING:
    from feedtune.text.codec import Codec

VOCABULARY = 6


class TinyBackbone(Backbone):
    """The smallest recurrent network that obeys the laws: h_t = tanh(embed(x_t) + W h_{t-1})."""

    def __init__(self, *, vocab_size: int = VOCABULARY, hidden_size: int = 5) -> None:
        super().__init__()
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.config = {"vocab_size": vocab_size, "hidden_size": hidden_size}
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.recurrence = nn.Linear(hidden_size, hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, vocab_size)

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        embedded = self.embedding(tokens)  # [B, T, H]
        last = torch.zeros_like(embedded[:, 0]) if state is None else state  # [B, H]
        hidden = []
        for t in range(tokens.shape[1]):
            last = torch.where(mask[:, t, None], (embedded[:, t] + self.recurrence(last)).tanh(), last)
            hidden.append(last)
        return torch.stack(hidden, 1), last

    def unembed(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.output(hidden)
        return logits

    def select(self, state: State, rows: Tensor) -> State:
        chosen: Tensor = state[rows]
        return chosen

    def head(self, outputs: int) -> nn.Module:
        head = nn.Linear(self.hidden_size, outputs, dtype=self.output.weight.dtype)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head


class Louder(Backbone):
    """Another backbone with logits that are so many times as large."""

    def __init__(self, quiet: Backbone, times: float) -> None:
        super().__init__()
        self.quiet, self.times, self.vocab_size = quiet, times, quiet.vocab_size

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        hidden, state = self.quiet(tokens, mask, state)
        return hidden, state

    def unembed(self, hidden: Tensor) -> Tensor:
        return self.times * self.quiet.unembed(hidden)

    def select(self, state: State, rows: Tensor) -> State:
        return self.quiet.select(state, rows)

    def head(self, outputs: int) -> nn.Module:
        return self.quiet.head(outputs)


class TinyBag(Backbone):
    """Reads the mean of what was said so far, in no order; its state is a pair of tensors."""

    def __init__(self, *, vocab_size: int = VOCABULARY, hidden_size: int = 5) -> None:
        super().__init__()
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.config = {"vocab_size": vocab_size, "hidden_size": hidden_size}
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.output = nn.Linear(hidden_size, vocab_size)

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        embedded = torch.where(mask[..., None], self.embedding(tokens), 0.0)  # [B, T, H]
        total, count = embedded.cumsum(1), mask.cumsum(1)
        if state is not None:
            total, count = total + state[0][:, None], count + state[1][:, None]
        return total / count.clamp(min=1)[..., None], (total[:, -1], count[:, -1])

    def unembed(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.output(hidden)
        return logits

    def select(self, state: State, rows: Tensor) -> State:
        return tuple(part[rows] for part in state)

    def head(self, outputs: int) -> nn.Module:
        head = nn.Linear(self.hidden_size, outputs, dtype=self.output.weight.dtype)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return head


@cache
def tiny_codec() -> Codec:
    """Characters of English text as tokens, about a hundred; others are one token for all.

    >>> codec = tiny_codec()
    >>> codec.response(codec.prompt({"prompt": "Hello?"}).tokens)
    'Hello?'
    """
    from feedtune.text.tokenizers import TrainedTokenizer

    characters = string.ascii_letters + string.digits + string.punctuation + " \n"
    return TrainedTokenizer(kind="char", vocab_size=128).build(lambda: iter([characters]))
