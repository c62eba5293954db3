"""Attention of one new token a row, against torch's kernel and by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from feedtune_plugins.backbones.causal_lm import CausalLM
from feedtune_plugins.backbones.one_query import NAME, fast_for_one_query, one_query


def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float | None = None) -> Tensor:
    layer = SimpleNamespace(num_key_value_groups=query.shape[1] // key.shape[1], is_causal=True)
    return one_query(layer, query, key, value, None, scaling=scaling)[0]


def test_golden() -> None:
    # Two heads share the keys 0 and 1. Scores x scaling 1: head 0 sees (0, log 3), weights 1/4 and 3/4, and
    # head 1 sees (0, 0). Values 8 and 4: 1/4 8 + 3/4 4 = 5, and 6.
    query = torch.tensor([[[[math.log(3)]], [[0.0]]]])
    key, value = torch.tensor([[[[0.0], [1.0]]]]), torch.tensor([[[[8.0], [4.0]]]])
    assert attend(query, key, value, 1.0).flatten().tolist() == pytest.approx([5.0, 6.0])


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("queries", [1, 3])
def test_as_torch_has_it(heads: tuple[int, int], queries: int) -> None:
    random = torch.Generator().manual_seed(0)
    query = torch.randn(5, heads[0], queries, 8, generator=random, dtype=torch.float64)
    key, value = torch.randn(2, 5, heads[1], 7, 8, generator=random, dtype=torch.float64)
    if queries > 1:  # these come first of all, so that the causal mask is plain
        key, value = key[:, :, :queries], value[:, :, :queries]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=queries > 1, enable_gqa=True
    )
    torch.testing.assert_close(attend(query, key, value), expected.transpose(1, 2))


def small(dtype: torch.dtype) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def test_only_where_sdpa_attends_and_only_while_it_is_open() -> None:
    model = small(torch.bfloat16)
    with fast_for_one_query(model):
        assert model.config._attn_implementation == NAME
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    with fast_for_one_query(model):
        assert model.config._attn_implementation == "eager"
    with pytest.raises(ZeroDivisionError), fast_for_one_query(small(torch.float32)):
        raise ZeroDivisionError


@pytest.mark.parametrize("left_pads", [0, 2])
def test_a_steady_backbone_reads_on_as_before(left_pads: int) -> None:
    backbone = CausalLM(small(torch.bfloat16), 11)
    tokens = torch.randint(11, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, :left_pads] = False
    with torch.no_grad():
        whole, _ = backbone(tokens, mask)
        with backbone.steady():
            hidden, state = backbone(tokens[:, :5], mask[:, :5])
            found = [hidden]
            for column in range(5, 9):
                one = slice(column, column + 1)
                hidden, state = backbone(tokens[:, one], mask[:, one], state)
                found.append(hidden)
    torch.testing.assert_close(torch.cat(found, 1)[mask], whole[mask], atol=0.06, rtol=0.06)
