"""N-grams: a table with one row for each of the last n-1 tokens.

Unembedding and heads are tables of their own, so Q-learning over this backbone is a Q-table, and a value
head is a table of values. Filled from counts it is the n-gram model (Shannon 1948, A Mathematical Theory of
Communication); hashed rows are the hashing trick (Weinberger et al. 2009, arXiv:0902.2206).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feedtune.contracts import Backbone, State
from feedtune.errors import UserError
from feedtune.parts import LeftAligned

NOTHING = 0
"""The symbol before a row's first token; token i is symbol i + 1."""


class Table(nn.Module):
    """One row of numbers for each bucket, all 0 at first. A lookup: only rows that were read get gradient."""

    def __init__(self, rows: int, outputs: int, like: Tensor | None = None) -> None:
        super().__init__()
        made = torch.zeros(rows, outputs) if like is None else like.new_zeros(rows, outputs)
        self.weight = nn.Parameter(made)

    def forward(self, hidden: Tensor) -> Tensor:
        """Bucket numbers `[..., 1]` int64 to their rows `[..., outputs]`."""
        return F.embedding(hidden.squeeze(-1), self.weight)


class NGram(Backbone):
    """The next token by the last n-1 tokens.

    The hidden state is the number of the bucket, `[B, T, 1]` int64: the exact identity of the state. Where
    all `(vocab_size + 1) ** (n - 1)` contexts fit into `buckets`, each has its own row; otherwise contexts
    are hashed and may share one. Contexts shorter than n-1 are filled up with a symbol of their own. The
    table starts at 0: every next token is as likely as any other.

    Args:
        vocab_size: tokens that the tokenizer knows.
        n: tokens that the table speaks of, the next one included; at least 1.
        buckets: most rows of the table.

    >>> bigrams = NGram(vocab_size=3, n=2, buckets=100)
    >>> hidden, state = bigrams(torch.tensor([[0, 2]]), torch.ones(1, 2, dtype=torch.bool))
    >>> hidden.squeeze(-1)
    tensor([[1, 3]])
    >>> bigrams.unembed(hidden).shape
    torch.Size([1, 2, 3])
    """

    def __init__(self, *, vocab_size: int, n: int = 3, buckets: int = 16384) -> None:
        super().__init__()
        if n < 1:
            raise UserError(f"backbone.n: expected at least 1, got {n}")
        if buckets < 1:
            raise UserError(f"backbone.buckets: expected at least 1, got {buckets}")
        self.vocab_size = vocab_size
        self.n = n
        self.config = {"vocab_size": vocab_size, "n": n, "buckets": buckets}
        contexts = (vocab_size + 1) ** (n - 1)
        self.exact = contexts <= buckets
        self.rows = min(contexts, buckets)
        self.table = Table(self.rows, vocab_size)

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Buckets `[B, T, 1]` int64 and the state: the last n-1 symbols of each row, `[B, n-1]` int64."""
        before = tokens.new_full((len(tokens), self.n - 1), NOTHING) if state is None else state
        if self.n == 1:
            return torch.zeros_like(tokens)[..., None], before
        rows = LeftAligned.of(mask)
        symbols = torch.cat([before, rows.align(tokens) + 1], 1)  # [B, n-1+T]
        contexts = symbols.unfold(1, self.n - 1, 1)[:, 1:]  # [B, T, n-1], the token itself included
        last = rows.lengths[:, None] + torch.arange(self.n - 1, device=tokens.device)
        return rows.restore(self._bucket(contexts)[..., None]), symbols.gather(1, last)

    def _bucket(self, contexts: Tensor) -> Tensor:
        """Symbols `[..., n-1]` to bucket numbers `[...]`."""
        if self.exact:
            base = self.vocab_size + 1
            powers = torch.tensor([base**i for i in range(self.n - 1)], device=contexts.device)
            return (contexts * powers).sum(-1)
        return hash_symbols(contexts).remainder(self.rows)

    def unembed(self, hidden: Tensor) -> Tensor:
        """Rows of the table, `[..., 1]` int64 to `[..., V]`."""
        logits: Tensor = self.table(hidden)
        return logits

    def select(self, state: State, rows: Tensor) -> State:
        """The last n-1 symbols of these rows."""
        selected: Tensor = state.index_select(0, rows)
        return selected

    def head(self, outputs: int) -> Table:
        """A table of its own, `[buckets, outputs]`, all 0."""
        return Table(self.rows, outputs, like=self.table.weight)

    @torch.no_grad()
    def fill_from_counts(self, rows: Iterable[Sequence[int]], smoothing: float = 1.0) -> None:
        """Set the table to log((count + smoothing) / (total + V smoothing)), as counted in these rows.

        A row's first token follows nothing that the backbone has read, so it is context only.

        Args:
            rows: token ids; read once.
            smoothing: added to every count, above 0; 1 is Laplace's. Higher is more uniform.
        """
        if smoothing <= 0:
            raise ValueError(f"smoothing must be above 0, or unseen tokens have no logit; got {smoothing}")
        table, device = self.table.weight, self.table.weight.device
        table.zero_()
        for row in rows:
            if len(row) < 2:
                continue
            tokens = torch.tensor([list(row)], device=device)
            hidden, _ = self(tokens[:, :-1], torch.ones_like(tokens[:, :-1], dtype=torch.bool))
            one = torch.ones(len(row) - 1, dtype=table.dtype, device=device)
            table.index_put_((hidden[0, :, 0], tokens[0, 1:]), one, accumulate=True)
        table.add_(smoothing)
        table.div_(table.sum(-1, keepdim=True)).log_()


def hash_symbols(symbols: Tensor) -> Tensor:
    """A 63-bit hash `[...]` of the last dimension of non-negative integers `[..., k]`, order included.

    Each symbol is added to what came before and mixed by the finaliser of SplitMix64 (Steele, Lea and Flood
    2014, Fast Splittable Pseudorandom Number Generators): every bit of the input flips each bit of the output
    half of the time. Multiplication wraps around at 64 bits on every device.

    >>> hash_symbols(torch.tensor([[1, 2], [2, 1]])).remainder(1000)
    tensor([419, 797])
    """
    mixed = torch.zeros_like(symbols[..., 0])
    for symbol in symbols.unbind(-1):
        mixed = _mix(mixed + symbol + _signed(0x9E3779B97F4A7C15))
    return mixed & 0x7FFFFFFFFFFFFFFF


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift_right(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Without the sign, as on unsigned integers."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(constant: int) -> int:
    """The int64 with the bits of this unsigned integer."""
    return constant - (1 << 64)
