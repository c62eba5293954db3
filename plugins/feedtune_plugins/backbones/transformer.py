"""A small Llama from scratch (Touvron et al. 2023, arXiv:2302.13971), from transformers' own classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from feedtune.errors import UserError
from feedtune_plugins.backbones.causal_lm import CausalLM
from feedtune_plugins.quiet_loading import quiet_loading


class Transformer(CausalLM):
    """A decoder with rotary positions, RMSNorm and SwiGLU; its export is an ordinary transformers folder.

    Args:
        vocab_size: tokens that the tokenizer knows.
        hidden_size: size of the residual stream; a multiple of `heads`.
        layers: blocks.
        heads: attention heads.
        kv_heads: heads of keys and values, a divisor of `heads`; fewer make the cache smaller.
        intermediate_size: width of the feed-forward layers.
        context_length: most tokens of a row, prompt and response together.
        dropout: share of attention weights that training switches off.
        tied: the unembedding is the embedding.

    >>> tiny = Transformer(vocab_size=10, hidden_size=8, layers=1, heads=2, kv_heads=2, intermediate_size=16)
    >>> hidden, state = tiny(torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.bool))
    >>> hidden.shape, tiny.unembed(hidden).shape
    (torch.Size([1, 3, 8]), torch.Size([1, 3, 10]))
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        hidden_size: int = 256,
        layers: int = 4,
        heads: int = 4,
        kv_heads: int = 4,
        intermediate_size: int = 688,
        context_length: int = 512,
        dropout: float = 0.0,
        tied: bool = True,
    ) -> None:
        if hidden_size % heads or (hidden_size // heads) % 2:
            raise UserError(
                f"backbone.hidden_size: expected an even multiple of backbone.heads={heads}, "
                f"got {hidden_size}"
            )
        if heads % kv_heads:
            raise UserError(
                f"backbone.kv_heads: expected a divisor of backbone.heads={heads}, got {kv_heads}"
            )
        config = LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            intermediate_size=intermediate_size,
            max_position_embeddings=context_length,
            attention_dropout=dropout,
            tie_word_embeddings=tied,
            bos_token_id=None,  # special tokens are the tokenizer's to say
            eos_token_id=None,
        )
        super().__init__(LlamaForCausalLM(config), vocab_size)
        self.config = {
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "layers": layers,
            "heads": heads,
            "kv_heads": kv_heads,
            "intermediate_size": intermediate_size,
            "context_length": context_length,
            "dropout": dropout,
            "tied": tied,
        }

    @classmethod
    def load(cls, folder: Path, config: Mapping[str, Any]) -> Transformer:
        """The transformer that `save` wrote, in float32."""
        backbone = cls(**config)
        with quiet_loading():
            saved = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        backbone.model.load_state_dict(saved.state_dict())
        return backbone
