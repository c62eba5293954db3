"""Attention of one new token a row in half precision on a CPU, where torch's own is slow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "feedtune_one_query"


@contextmanager
def fast_for_one_query(model: Any) -> Iterator[None]:
    """A model of transformers that attends by `sdpa` attends by `one_query` while this is open.

    Nothing changes on other devices or in float32, where torch's kernel is as fast.
    """
    weight = next(model.parameters())
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
    if not (weight.is_cpu and dtype.itemsize == 2 and model.config._attn_implementation == "sdpa"):
        yield
        return
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


def one_query(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Softmax(q K^T x scaling) V as two plain products; anything but one query without a mask goes to sdpa.

    Heads that share keys and values are rows of one product. torch's kernel takes 6 ms for 32 rows of 9 heads
    over 150 tokens in bfloat16, on one thread; this takes 0.9 ms (docs/performance.md).

    Args:
        module: the layer.
        query: `[B, heads, T, D]`.
        key, value: `[B, key heads, past, D]`.
        attention_mask: None where every token is to be seen.
        options: `scaling`, of the scores, and what sdpa knows beside it.

    Returns:
        `[B, T, heads, D]`, and no weights.
    """
    if query.shape[2] > 1 or attention_mask is not None or options.get("position_bias") is not None:
        found, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return found, None
    batch, heads, _, size = query.shape
    grouped = query.reshape(batch, key.shape[1], heads // key.shape[1], size)
    scale = options.get("scaling") or size**-0.5
    scores = (grouped * scale) @ key.transpose(-1, -2)  # [B, key heads, group, past]
    said = scores.softmax(-1) @ value
    return said.view(batch, 1, heads, value.shape[-1]), None


AttentionInterface.register(NAME, one_query)
AttentionMaskInterface.register(NAME, sdpa_mask)
