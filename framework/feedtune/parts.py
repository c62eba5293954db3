"""Small parts for whoever writes a backbone: heads that start at 0, and rows moved to the left."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ZeroHead(nn.Linear):
    """A linear head that starts at exactly 0 and computes in its own precision.

    Values and Q-values are regressions: in bfloat16 they would have three digits. So the head keeps its
    float32 weights beside a bfloat16 backbone, casts its input, and leaves autocast out. It draws no random
    numbers, so a head more or less changes nothing else under a seed.

    >>> ZeroHead(4, 2)(torch.ones(3, 4, dtype=torch.bfloat16)).detach()
    tensor([[0., 0.],
            [0., 0.],
            [0., 0.]])
    """

    def reset_parameters(self) -> None:
        """Weight and bias are 0."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[..., H]` in any floating type to `[..., outputs]` in the head's own."""
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.to(self.weight.dtype), self.weight, self.bias)


def zero_head(hidden_size: int, outputs: int, like: Tensor) -> ZeroHead:
    """A head on `like`'s device, in float32, or float64 where the backbone is."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return ZeroHead(hidden_size, outputs, device=like.device, dtype=dtype)


@dataclass(frozen=True)
class LeftAligned:
    """Where the real tokens of each row go when they are moved to the left, and how to find them again.

    >>> rows = LeftAligned.of(torch.tensor([[False, True, True]]))
    >>> rows.align(torch.tensor([[7, 8, 9]]))
    tensor([[8, 9, 7]])
    >>> rows.restore(torch.tensor([[[80], [90], [70]]])).tolist()
    [[[80], [80], [90]]]
    """

    order: Tensor  # [B, T] int64: column of the original that stands at each place of the aligned row
    place: Tensor  # [B, T] int64: place in the aligned row of each original column; pads point anywhere
    lengths: Tensor  # [B] int64: real tokens

    @classmethod
    def of(cls, mask: Tensor) -> LeftAligned:
        """From a mask `[B, T]` bool."""
        order = torch.argsort(mask.logical_not().to(torch.uint8), dim=1, stable=True)
        return cls(order, (mask.cumsum(1) - 1).clamp(min=0), mask.sum(1))

    def align(self, tokens: Tensor) -> Tensor:
        """Tokens `[B, T]` with the real ones first, in their order."""
        return tokens.gather(1, self.order)

    def restore(self, hidden: Tensor) -> Tensor:
        """Hidden states `[B, T, H]` of aligned tokens, back under the columns they speak of."""
        return hidden.gather(1, self.place[:, :, None].expand_as(hidden))
