"""LSTM and GRU language models (Hochreiter and Schmidhuber 1997; Cho et al. 2014, arXiv:1406.1078)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from feedtune.contracts import Backbone, State
from feedtune.errors import UserError, nearest
from feedtune.parts import LeftAligned, ZeroHead, zero_head

CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}

Memory = tuple[Tensor, ...]  # (h, c) of an LSTM, (h,) of a GRU; [layers, B, hidden] each


class Recurrent(Backbone):
    """Embedding, LSTM or GRU, a projection back to the size of the embedding, unembedding.

    Rows have no length limit: the state has one size. In batches with pads the state is worked out only when
    somebody asks for it (it needs the slow, packed kernels), so keep the weights as they are in between.

    Args:
        vocab_size: tokens that the tokenizer knows.
        cell: "lstm" or "gru".
        embed_size: size of token embeddings and of the hidden states that heads read.
        hidden_size: size of the cell's state.
        layers: cells on top of one another.
        dropout: share of embeddings, outputs and connections between layers that training switches off.
        tied: the unembedding is the embedding (Press and Wolf 2017, arXiv:1608.05859), plus a bias.

    >>> lstm = Recurrent(vocab_size=10, embed_size=8, hidden_size=16, layers=1)
    >>> hidden, state = lstm(torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.bool))
    >>> hidden.shape, lstm.unembed(hidden).shape
    (torch.Size([1, 3, 8]), torch.Size([1, 3, 10]))
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        cell: Literal["lstm", "gru"] = "lstm",
        embed_size: int = 256,
        hidden_size: int = 512,
        layers: int = 2,
        dropout: float = 0.0,
        tied: bool = True,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise UserError(f"backbone.cell: expected lstm or gru, got '{cell}'.{nearest(cell, CELLS)}")
        self.vocab_size = vocab_size
        self.config = {
            "vocab_size": vocab_size,
            "cell": cell,
            "embed_size": embed_size,
            "hidden_size": hidden_size,
            "layers": layers,
            "dropout": dropout,
            "tied": tied,
        }
        self.embedding = nn.Embedding(vocab_size, embed_size)
        nn.init.normal_(
            self.embedding.weight, std=embed_size**-0.5
        )  # logits of a fresh, tied model stay small
        between = dropout if layers > 1 else 0.0
        self.rnn = CELLS[cell](embed_size, hidden_size, layers, batch_first=True, dropout=between)
        self.projection = nn.Linear(hidden_size, embed_size)
        self.dropout = nn.Dropout(dropout)
        self.unembedding = None if tied else nn.Linear(embed_size, vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Hidden states `[B, T, embed_size]` and the state: a `Memory`, or what makes one on demand."""
        memory = None if state is None else _resolved(state)
        if mask.all():
            out, memory = self._run(self._embed(tokens), memory)
            return self._project(out), memory
        rows = LeftAligned.of(mask)
        x = self._embed(rows.align(tokens))
        out, _ = self._run(x, memory)  # pads come last: no real token sees one
        return rows.restore(self._project(out)), partial(self._memory_of, x, rows.lengths, memory)

    def _embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.dropout(self.embedding(tokens))
        return embedded

    def _project(self, out: Tensor) -> Tensor:
        projected: Tensor = self.dropout(self.projection(out))
        return projected

    def _run(self, x: Any, memory: Memory | None) -> tuple[Any, Memory]:
        """Through the cells; the memory in one form for both kinds."""
        if x.is_cuda:
            self.rnn.flatten_parameters()  # a copied or moved model is in pieces; nothing to do otherwise
        if memory is None:
            out, after = self.rnn(x)
        else:
            out, after = self.rnn(x, memory if isinstance(self.rnn, nn.LSTM) else memory[0])
        return out, after if isinstance(after, tuple) else (after,)

    def _memory_of(self, x: Tensor, lengths: Tensor, before: Memory | None) -> Memory:
        """What the cells remember after so many tokens of each row; nothing new where there are none."""
        packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        _, after = self._run(packed, before)
        start = before or tuple(torch.zeros_like(part) for part in after)
        read = (lengths > 0)[None, :, None]
        return tuple(torch.where(read, new, old) for new, old in zip(after, start, strict=True))

    def unembed(self, hidden: Tensor) -> Tensor:
        """`[..., embed_size]` to logits `[..., V]`."""
        own = self.embedding if self.unembedding is None else self.unembedding
        return F.linear(hidden, own.weight, self.bias)

    def select(self, state: State, rows: Tensor) -> State:
        """The memory of these rows."""
        return tuple(part.index_select(1, rows) for part in _resolved(state))

    def head(self, outputs: int) -> ZeroHead:
        """A linear head on the projected output."""
        return zero_head(self.projection.out_features, outputs, like=self.projection.weight)


def _resolved(state: Memory | Callable[[], Memory]) -> Memory:
    return state() if callable(state) else state
