"""The benchmark's count of operations: by hand, and beside torch's own counter."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.floor import Shape, Work, pass_flops, read_flops, step_flops, unembed_flops

TINY = Shape(hidden=2, intermediate=3, layers=1, heads=1, kv_heads=1, head_dim=2, vocabulary=5)


def test_a_step_counted_by_hand() -> None:
    # A token: linear weights 4 (q) + 4 (k) + 4 (v) + 4 (o) + 6 (gate) + 6 (up) + 6 (down) = 34, so 68;
    # each key seen: 2 x 2 for its score, 2 x 2 for its value, so 8. Logits of a position: 2 x 2 x 5 = 20.
    # Prompt of 2 tokens: 2 x 68 + 8 (1 + 2) = 160, and its last position's logits 20: 180.
    # Response of 3 tokens reads 2 of them, at keys 3 and 4: 2 x 68 + 8 x 7 = 192, and 2 x 20 logits: 232.
    work = Work(prompts=3, group=2, prompt_tokens=2, new_tokens=3)
    assert pass_flops(TINY, work) == 3 * (180 + 2 * 232)
    # sampling, reference, policy forward, and a backward of twice the forward
    assert step_flops(TINY, work) == 5 * 3 * (180 + 2 * 232)


def test_responses_of_one_token_cost_their_prompts_alone() -> None:
    work = Work(prompts=1, group=8, prompt_tokens=2, new_tokens=1)
    assert pass_flops(TINY, work) == 180


def test_grouped_heads_have_smaller_keys_and_values() -> None:
    # q 2 x 2, k 2 x 1, v 2 x 1, o 2 x 2, feed-forward 18: 30 weights; two heads of width 1 see 1 key: 8
    grouped = Shape(hidden=2, intermediate=3, layers=1, heads=2, kv_heads=1, head_dim=1, vocabulary=5)
    assert read_flops(grouped, 0, 1) == 2 * 30 + 8


def test_torch_counts_the_same_for_a_token_of_a_real_llama() -> None:
    shape = Shape(hidden=16, intermediate=24, layers=2, heads=4, kv_heads=2, head_dim=4, vocabulary=11)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=11,
        attn_implementation="eager",
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        LlamaForCausalLM(config)(input_ids=torch.tensor([[3]]), use_cache=False)
    assert counter.get_total_flops() == read_flops(shape, 0, 1) + unembed_flops(shape)
