"""The smallest backbones that obey the laws."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from feedtune.contracts import Backbone, State

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
