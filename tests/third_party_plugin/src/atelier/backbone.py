"""Causal convolutions with gates (Dauphin et al. 2017, arXiv:1612.08083), dilated ever wider."""

from __future__ import annotations

import torch
from feedtune.contracts import Backbone, State
from feedtune.errors import UserError
from feedtune.parts import zero_head
from torch import Tensor, nn
from torch.nn.functional import glu, linear


class GatedConvolution(Backbone):
    """Layers of x + conv(norm(x)) * sigmoid(gate(norm(x))); layer i reads every 2^i-th token before its own.

    A token sees itself and (width - 1)(2^layers - 1) tokens before it. The state is what each layer has read
    of those, `[B, span, hidden_size]`, so rows have no length limit.

    Args:
        vocab_size: tokens that the tokenizer knows.
        hidden_size: channels of each layer, and size of what heads read.
        layers: layers on top of one another.
        width: tokens that a layer reads at once, 2 or more.

    Raises:
        UserError: a size that makes no network.

    >>> network = GatedConvolution(vocab_size=10, hidden_size=8, layers=2)
    >>> hidden, state = network(torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.bool))
    >>> hidden.shape, [past.shape[1] for past in state], network.sight
    (torch.Size([1, 3, 8]), [2, 4], 7)
    """

    def __init__(self, *, vocab_size: int, hidden_size: int = 128, layers: int = 4, width: int = 3) -> None:
        super().__init__()
        sizes = {"hidden_size": (hidden_size, 1), "layers": (layers, 1), "width": (width, 2)}
        for key, (value, least) in sizes.items():
            if value < least:
                raise UserError(f"backbone.{key}: expected {least} or more, got {value}")
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        self.sight = 1 + (width - 1) * (2**layers - 1)
        self.config = {
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "layers": layers,
            "width": width,
        }
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        # So that logits of a fresh model, which are products with these weights, stay small.
        nn.init.normal_(self.embedding.weight, std=hidden_size**-0.5)
        self.layers = nn.ModuleList(Layer(hidden_size, width, 2**i) for i in range(layers))
        self.norm = nn.LayerNorm(hidden_size)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Hidden states `[B, T, H]`, and of each layer what it has read last, `[B, span, H]`."""
        # Pads go to the end, where no real token sees them, and back afterwards.
        order = mask.logical_not().byte().argsort(dim=1, stable=True)  # [B, T]
        place = (mask.cumsum(1) - 1).clamp(min=0)
        x = self.embedding(tokens.gather(1, order))  # [B, T, H]
        before = [None] * len(self.layers) if state is None else state
        after = []
        for layer, past in zip(self.layers, before, strict=True):
            x, past = layer(x, past, mask.sum(1))
            after.append(past)
        hidden: Tensor = self.norm(x)
        return hidden.gather(1, place[:, :, None].expand_as(hidden)), after

    def unembed(self, hidden: Tensor) -> Tensor:
        """`[..., H]` to logits `[..., V]`, by the embedding's own weights."""
        return linear(hidden, self.embedding.weight, self.bias)

    def select(self, state: State, rows: Tensor) -> State:
        """What the layers have read of these rows `[R]`."""
        return [past[rows] for past in state]

    def head(self, outputs: int) -> nn.Module:
        """A linear head on the hidden states, that starts at 0."""
        return zero_head(self.hidden_size, outputs, like=self.bias)


class Layer(nn.Module):
    """One gated convolution over the tokens, added to its input `[B, T, H]`."""

    def __init__(self, size: int, width: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.convolution = nn.Conv1d(size, 2 * size, width, dilation=dilation)
        self.span = (width - 1) * dilation  # tokens before its own that it reads

    def forward(self, x: Tensor, past: Tensor | None, real: Tensor) -> tuple[Tensor, Tensor]:
        """`x` `[B, T, H]` with pads last, `past` `[B, span, H]` and the number of real tokens `[B]`."""
        new = self.norm(x)
        before = new.new_zeros(len(x), self.span, x.shape[-1]) if past is None else past
        read = torch.cat([before, new], 1)  # [B, span + T, H]
        out = glu(self.convolution(read.mT), dim=1).mT  # [B, T, H]
        newest = real[:, None] + torch.arange(self.span, device=x.device)  # [B, span]: columns of `read`
        return x + out, read.gather(1, newest[:, :, None].expand(-1, -1, x.shape[-1]))
