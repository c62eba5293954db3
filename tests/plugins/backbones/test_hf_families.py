"""Which families of models pass the checks at load, and with which words the others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, GPT2Model

from feedtune.errors import UserError
from feedtune.testing.backbones import nudged, pads_law, prefix_law, random_rows, read, select_law
from feedtune_plugins.backbones.hf import HF

LLAMA_LIKE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2_LIKE = {
    "vocab_size": 64,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OPT = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "ffn_dim": 32,
    "max_position_embeddings": 48,
    "word_embed_proj_dim": 8,  # the trunk projects: hidden states are smaller than the residual stream
}
BLOOM = {"vocab_size": 64, "hidden_size": 16, "n_layer": 2, "n_head": 2}  # no positions: ALiBi from the mask
PASS: dict[str, dict[str, Any]] = {
    "gpt2": GPT2_LIKE,
    "gpt_neox": LLAMA_LIKE,
    "llama": LLAMA_LIKE,
    "qwen2": LLAMA_LIKE,
    "qwen3": {**LLAMA_LIKE, "head_dim": 8},
    "mistral": {**LLAMA_LIKE, "sliding_window": None},
    "phi": LLAMA_LIKE,
    "opt": OPT,
    "gemma": {**LLAMA_LIKE, "head_dim": 8},
    "bloom": BLOOM,
    "mixtral": LLAMA_LIKE,
}
SCALED = "it scales or caps its logits outside lm_head"
NO_CACHE = "its state is no key-value cache, so rows of it cannot be repeated or dropped"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "granite": ({**LLAMA_LIKE, "logits_scaling": 8.0}, SCALED),
    "cohere": (LLAMA_LIKE, SCALED),
    "gemma2": ({**LLAMA_LIKE, "head_dim": 8}, SCALED),
    "mamba": ({"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}, NO_CACHE),
    "qwen3_next": ({**LLAMA_LIKE, "head_dim": 8}, "reading a few tokens failed"),  # linear attention between
    "bert": (LLAMA_LIKE, "its lm_head does not read the last hidden state as it is"),
}


def saved(kind: str, options: dict[str, Any], folder: Path) -> str:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **options)).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", PASS)
def test_families_that_pass_keep_every_law(kind: str, tmp_path: Path) -> None:
    backbone = nudged(HF(vocab_size=64, name=saved(kind, PASS[kind], tmp_path)))
    model, tokens = backbone.causal, torch.stack(random_rows(backbone, [7, 7]))
    with torch.no_grad():
        hidden, _ = backbone(tokens, torch.ones_like(tokens, dtype=torch.bool))
        torch.testing.assert_close(backbone.unembed(hidden), model(tokens).logits, rtol=1e-5, atol=1e-5)
        prefix_law(backbone, 6, 1e-5)
        pads_law(backbone, [[4, 2, 0, 1], [0, 3, 2, 1]], [[0, 3, 1, 1], [2, 0, 1, 0]], 1e-5)
        select_law(backbone, [2, 0, 0], [0, 2, 1], 1e-5)


@pytest.mark.parametrize("kind", REFUSED)
def test_families_that_break_a_law_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    options, words = REFUSED[kind]
    with pytest.raises(UserError) as caught:
        HF(vocab_size=64, name=saved(kind, options, tmp_path))
    message = str(caught.value)
    assert message.startswith(f"backbone.name: '{tmp_path}' ({kind}) cannot be tuned: ")
    assert words in message
    assert "\n" not in message


def test_a_granite_that_does_not_scale_passes(tmp_path: Path) -> None:
    HF(vocab_size=64, name=saved("granite", {**LLAMA_LIKE, "logits_scaling": 1.0}, tmp_path))


def test_an_encoder_decoder_is_no_causal_language_model(tmp_path: Path) -> None:
    sizes = {"d_model": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2, "d_ff": 32}
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", vocab_size=64, **sizes))
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"backbone\.name: '.*' \(t5\) is no causal language model"):
        HF(vocab_size=64, name=str(tmp_path))


def test_a_sliding_window_is_the_context(tmp_path: Path) -> None:
    # beyond the window a pad would take the place of a real token
    name = saved("mistral", {**LLAMA_LIKE, "sliding_window": 20}, tmp_path)
    assert HF(vocab_size=64, name=name).context_length == 20


def test_context_lengths(tmp_path: Path) -> None:
    assert HF(vocab_size=64, name=saved("gpt2", GPT2_LIKE, tmp_path / "a")).context_length == 48
    assert HF(vocab_size=64, name=saved("bloom", BLOOM, tmp_path / "b")).context_length is None


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("past_key_values", "a prefix and its cached state are not the whole"),
        ("attention_mask", "pads change what real tokens see"),
        ("position_ids", "pads change what real tokens see"),
    ],
)
def test_a_trunk_that_ignores_what_it_is_given_is_found_out(
    lost: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPT-2's learned positions make each of the three matter."""
    name, forward = saved("gpt2", GPT2_LIKE, tmp_path), GPT2Model.forward

    def ignoring(
        self: Any,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        use_cache: Any = None,
        **rest: Any,
    ) -> Any:
        given = {
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
        }
        given[lost] = None
        return forward(self, input_ids=input_ids, use_cache=use_cache, **given, **rest)

    monkeypatch.setattr(GPT2Model, "forward", ignoring)
    with pytest.raises(UserError, match=words):
        HF(vocab_size=64, name=name)


def test_loading_leaves_the_random_generator_alone(tiny_llama: Path) -> None:
    HF(vocab_size=64, name=str(tiny_llama))  # the first load imports lazily
    torch.manual_seed(4)
    before = torch.get_rng_state()
    backbone = HF(vocab_size=64, name=str(tiny_llama))
    read(backbone, random_rows(backbone, [3])[0])
    assert torch.equal(torch.get_rng_state(), before)
