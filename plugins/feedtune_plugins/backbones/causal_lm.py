"""A backbone around any causal language model of transformers that keeps its past in a key-value cache."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from feedtune.contracts import Backbone, State
from feedtune.errors import UserError
from feedtune.parts import ZeroHead, zero_head
from feedtune_plugins.backbones.one_query import fast_for_one_query
from feedtune_plugins.backbones.packing import packed_linears
from feedtune_plugins.quiet_loading import quiet_loading


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of a layer, `[B, heads, past, size]`.

    The first chunk is kept as it is, not copied. Where tokens come one by one and no gradient is asked for,
    they are written into room that is left behind the last, so that a token costs no copy of all before it.
    """

    ROOM = 64  # columns

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room: tuple[Tensor, Tensor] | None = None  # what keys and values are the first columns of

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append this chunk's; return all."""
        if not self.is_initialized:
            self.dtype, self.device = key_states.dtype, key_states.device
            self.keys, self.values, self.is_initialized = key_states, value_states, True
            return key_states, value_states
        if torch.is_grad_enabled() or key_states.shape[-2] > 1:
            self.room = None
            return super().update(key_states, value_states, *args, **kwargs)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        self.room = self._room_for(after)
        for room, states in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, before:after] = states
        self.keys, self.values = (room[:, :, :after] for room in self.room)
        return self.keys, self.values

    def _room_for(self, columns: int) -> tuple[Tensor, Tensor]:
        """Room for so many columns, with all keys and values so far in it."""
        if self.room is not None and columns <= self.room[0].shape[-2]:
            return self.room
        assert self.keys is not None
        assert self.values is not None
        return _widened(self.keys, columns + self.ROOM), _widened(self.values, columns + self.ROOM)

    def rows(self, rows: Tensor) -> GrowingLayer:
        """A copy of these rows, with the room behind them."""
        copied = GrowingLayer()
        if self.keys is not None and self.values is not None:
            keys, values = (part.index_select(0, rows) for part in self.room or (self.keys, self.values))
            past = self.get_seq_length()
            copied.update(keys[:, :, :past], values[:, :, :past])
            copied.room = None if self.room is None else (keys, values)
        return copied


def _widened(old: Tensor, columns: int) -> Tensor:
    """`[B, heads, past, size]` with room for so many columns; what stands in it is anything."""
    new = old.new_empty(*old.shape[:2], columns, old.shape[-1])
    new[:, :, : old.shape[-2]] = old
    return new


@dataclass
class Past:
    """What a transformer remembers. `forward` consumes it: the cache grows in place."""

    cache: Cache
    width: int  # columns in the cache, pads included
    mask: Tensor | None  # [B, width] bool; None: every column of every row is a real token


class CausalLM(Backbone):
    """Trunk and unembedding of a `PreTrainedModel`, with pads at both ends and rows that come and go.

    Positions count real tokens only. Batches without pads on the left run without an attention mask, which
    is exact (no token sees what comes after it) and lets the causal kernel work.

    Args:
        model: a causal language model of transformers, or peft's wrapper around one.
        vocab_size: tokens that the tokenizer knows; logits beyond them (rows that only fill up the
            embedding) are cut off.
    """

    recomputes = False  # gradient checkpointing: activations come again in the backward pass, without a cache

    def __init__(self, model: Any, vocab_size: int) -> None:
        super().__init__()
        self.model: Any = model  # transformers and peft are hardly typed
        self.vocab_size = vocab_size
        self.context_length = context_of(self.causal.config.get_text_config())
        known = inspect.signature(self.causal.base_model.forward).parameters
        self._takes_positions = "position_ids" in known  # those without (Bloom) count the attention mask

    @property
    def causal(self) -> Any:
        """The `PreTrainedModel` itself, without peft's wrapper."""
        return self.model if isinstance(self.model, PreTrainedModel) else self.model.get_base_model()

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Hidden states `[B, T, H]` and the state; None in training with gradient checkpointing."""
        stateless = self.recomputes and self.training
        if stateless and state is not None:
            raise UserError(
                "backbone.gradient_checkpointing: a training pass cannot go on from a state, as there is no "
                "cache where activations are recomputed; read whole rows, or set it to false"
            )
        past = state if state is not None else Past(Cache(layer_class_to_replicate=GrowingLayer), 0, None)
        width = past.width + tokens.shape[1]
        if self.context_length is not None and width > self.context_length:
            raise UserError(
                f"a row of {width} tokens (pads included) is longer than the context of {self.context_length}"
            )
        attention, positions, after = _layout(mask, past)
        cache = None if stateless else past.cache
        hidden: Tensor = self.causal.base_model(
            input_ids=tokens,
            attention_mask=attention,
            past_key_values=cache,
            use_cache=cache is not None,
            **({"position_ids": positions} if self._takes_positions else {}),
        ).last_hidden_state
        return hidden, None if cache is None else Past(cache, width, after)

    def unembed(self, hidden: Tensor) -> Tensor:
        """`[..., H]` to logits `[..., V]`."""
        logits: Tensor = self.causal.get_output_embeddings()(hidden)
        return logits if logits.shape[-1] == self.vocab_size else logits[..., : self.vocab_size]

    def select(self, state: State, rows: Tensor) -> State:
        """Copies of these rows of every layer's keys and values."""
        layers = [_select_layer(layer, rows) for layer in state.cache.layers]
        mask = None if state.mask is None else state.mask.index_select(0, rows)
        return Past(Cache(layers=layers), state.width, mask)

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Linear layers on packed weights, and attention of one query, on a CPU."""
        with packed_linears(self.causal), fast_for_one_query(self.causal):
            yield

    def head(self, outputs: int) -> ZeroHead:
        """A linear head on the last hidden state."""
        weight = self.causal.get_output_embeddings().weight
        return zero_head(weight.shape[1], outputs, like=weight)

    def save(self, folder: Path) -> None:
        """An ordinary transformers folder, without tokenizer: model.safetensors and config.json."""
        with quiet_loading():
            self.model.save_pretrained(folder)

    def merged(self, folder: Path) -> None:
        """The whole model as an ordinary transformers folder, without tokenizer: here what `save` writes."""
        self.save(folder)


def context_of(config: PretrainedConfig) -> int | None:
    """Most tokens of a row; None: no limit.

    A model that looks back through a sliding window (or within chunks) is given the window: beyond it, pads
    would take up places that belong to real tokens.

    >>> from transformers import LlamaConfig, MistralConfig
    >>> context_of(LlamaConfig(max_position_embeddings=2048))
    2048
    >>> context_of(MistralConfig(max_position_embeddings=32768, sliding_window=4096))
    4096
    """
    kinds = getattr(config, "layer_types", None)
    limits = [getattr(config, "max_position_embeddings", None)]
    if kinds is None or "sliding_attention" in kinds:
        limits.append(getattr(config, "sliding_window", None))
    if kinds is not None and "chunked_attention" in kinds:
        limits.append(config.attention_chunk_size)
    return min((limit for limit in limits if limit), default=None)


def _layout(mask: Tensor, past: Past) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """How the model is to see a chunk with this mask `[B, T]`.

    Returns the attention mask `[B, width + T]` (None: plainly causal), positions `[B or 1, T]` and the mask
    that the next chunk has to heed (None: no pads so far).
    """
    whole = bool(mask.all())
    pads_last = whole or bool((mask[:, 1:] <= mask[:, :-1]).all())
    if past.mask is None and pads_last:
        positions = torch.arange(past.width, past.width + mask.shape[1], device=mask.device)[None]
        return None, positions, None if whole else _joined(past, mask)
    joined = _joined(past, mask)
    positions = (joined.cumsum(1) - 1).clamp(min=0)[:, past.width :]
    return joined.long(), positions, joined


def _joined(past: Past, mask: Tensor) -> Tensor:
    """The mask of all columns so far, `[B, width + T]`."""
    before = mask.new_ones(len(mask), past.width) if past.mask is None else past.mask
    return torch.cat([before, mask], 1)


def _select_layer(layer: Any, rows: Tensor) -> Any:
    """A copy of these rows of one layer of a cache; refuses layers that hold more than keys and values."""
    if not isinstance(layer, GrowingLayer):
        raise UserError(
            f"backbone: cannot select rows of a {type(layer).__name__}; expected plain keys and values"
        )
    return layer.rows(rows)
