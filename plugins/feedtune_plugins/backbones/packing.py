"""Linear layers whose weights lie in memory as the processor's matrix product wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

ROWS = 64
"""Tokens at a time that the layout is chosen for."""

TYPES = (torch.float32, torch.bfloat16)
"""That oneDNN packs."""


@contextmanager
def packed_linears(model: nn.Module) -> Iterator[None]:
    """On a CPU, linear layers run on packed copies of their weights while this is open; no gradients.

    A matrix product rearranges the weights before it multiplies; where a step brings few tokens, that takes
    as long as the multiplication. Here it is done once, by oneDNN, in the type of the weights or of autocast.
    It costs a copy of the weights, and the weights must not change meanwhile. Does nothing where torch has no
    oneDNN or the model is on another device.
    """
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear and _can_be_packed(layer.weight)]
    casts = {dtype: Cast(dtype) for dtype in TYPES}
    for layer in layers:
        layer.forward = _packed(layer, casts[_type(layer.weight)])  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _can_be_packed(weight: Tensor) -> bool:
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_onednn and weight.is_cpu and _type(weight) in TYPES


class Cast:
    """Tensors in a type. The newest is kept: queries, keys and values are made from the same one.

    Args:
        dtype: the type.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._newest: tuple[Tensor, int, Tensor] | None = None  # what came, how often changed, its cast

    def __call__(self, x: Tensor) -> Tensor:
        """The tensor in the type."""
        if x.dtype == self.dtype:
            return x
        if x.is_inference():  # nobody counts its changes
            return x.to(self.dtype)
        if self._newest is None or self._newest[0] is not x or self._newest[1] != x._version:
            self._newest = x, x._version, x.to(self.dtype)
        return self._newest[2]


def _packed(layer: nn.Linear, cast: Cast) -> Callable[[Tensor], Tensor]:
    dtype = _type(layer.weight)
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().to(dtype), ROWS)
    bias = None if layer.bias is None else layer.bias.detach().to(dtype)
    product = torch.ops.mkldnn._linear_pointwise

    def forward(x: Tensor) -> Tensor:
        found: Tensor = product(cast(x), weight, bias, "none", [], "")
        return found

    return forward


def _type(weight: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
