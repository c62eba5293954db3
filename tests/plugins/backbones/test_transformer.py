"""The small Llama: an ordinary transformers folder, plain causal attention where that is exact."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from feedtune.errors import UserError
from feedtune.testing.backbones import padded, random_rows
from feedtune_plugins.backbones.causal_lm import CausalLM
from feedtune_plugins.backbones.transformer import Transformer


def tiny(**options: Any) -> Transformer:
    sizes = {"hidden_size": 16, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate_size": 24}
    return Transformer(vocab_size=30, **{**sizes, **options})


@pytest.mark.parametrize("tied", [True, False])
def test_its_export_is_an_ordinary_transformers_folder(tied: bool, tmp_path: Path) -> None:
    backbone = tiny(tied=tied, context_length=77).eval()
    backbone.save(tmp_path)
    assert {"model.safetensors", "config.json"} <= {path.name for path in tmp_path.iterdir()}
    described = json.loads((tmp_path / "config.json").read_text())
    assert described["model_type"] == "llama"
    assert described["max_position_embeddings"] == 77
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = torch.stack(random_rows(backbone, [6, 6]))
    with torch.no_grad():
        hidden, _ = backbone(tokens, torch.ones_like(tokens, dtype=torch.bool))
        assert torch.equal(model(tokens).logits, backbone.unembed(hidden))


def attention_masks(backbone: CausalLM, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the trunk is given as its attention mask from here on."""
    seen: list[Any] = []
    trunk = backbone.causal.base_model
    forward = trunk.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["attention_mask"])
        return forward(*args, **kwargs)

    monkeypatch.setattr(trunk, "forward", watched)
    return seen


def test_pads_at_the_end_and_decoding_need_no_attention_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny()
    seen = attention_masks(backbone, monkeypatch)
    _, state = backbone(*padded(backbone, random_rows(backbone, [4, 4]), left=[0, 0]))
    column, one = torch.tensor([[1], [2]]), torch.ones(2, 1, dtype=torch.bool)
    backbone(column, one, state)  # decoding after whole prompts
    backbone(*padded(backbone, random_rows(backbone, [4, 2]), left=[0, 0]))  # a ragged minibatch
    assert seen == [None, None, None]


def test_pads_before_tokens_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny()
    seen = attention_masks(backbone, monkeypatch)
    _, state = backbone(*padded(backbone, random_rows(backbone, [2, 1]), left=[0, 1]))
    column, one = torch.tensor([[1], [2]]), torch.ones(2, 1, dtype=torch.bool)
    backbone(column, one, state)
    assert [mask.tolist() for mask in seen] == [[[1, 1], [0, 1]], [[1, 1, 1], [0, 1, 1]]]


def test_the_first_chunk_is_not_copied_into_the_cache() -> None:
    backbone = tiny()
    tokens = torch.stack(random_rows(backbone, [5]))
    _, state = backbone(tokens, torch.ones_like(tokens, dtype=torch.bool))
    layer = state.cache.layers[0]
    # 5 tokens, 2 heads of keys of size 16 / 4; with a gradient, so groups can share a prompt in training
    assert layer.keys.shape == (1, 2, 5, 4)
    assert layer.keys.requires_grad
    assert layer.keys.grad_fn.name() != "CatBackward0"


def test_gradient_flows_through_a_selected_state() -> None:
    """A prompt is read once and its state given to each response: the same gradient as with whole rows."""
    backbone = tiny()
    prompt, ends = random_rows(backbone, [4])[0], torch.stack(random_rows(backbone, [3, 3], seed=1))

    def gradient(hidden: torch.Tensor) -> torch.Tensor:
        backbone.zero_grad()
        backbone.unembed(hidden).log_softmax(-1).square().sum().backward()
        return torch.cat(
            [weight.grad.flatten() for weight in backbone.parameters() if weight.grad is not None]
        )

    rows = torch.cat([prompt.expand(2, -1), ends], 1)
    whole = gradient(backbone(rows, torch.ones_like(rows, dtype=torch.bool))[0][:, 4:])
    _, state = backbone(prompt[None], torch.ones(1, 4, dtype=torch.bool))
    shared = backbone.select(state, torch.tensor([0, 0]))
    found = gradient(backbone(ends, torch.ones_like(ends, dtype=torch.bool), shared)[0])
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)


def test_a_row_beyond_the_context_is_refused() -> None:
    backbone = tiny(context_length=4)
    tokens = torch.zeros(1, 3, dtype=torch.int64)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    _, state = backbone(tokens, mask)
    with pytest.raises(UserError, match=r"a row of 6 tokens .* longer than the context of 4"):
        backbone(tokens, mask, state)


def test_sizes_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(UserError, match=r"backbone\.hidden_size: .* backbone\.heads=4, got 18"):
        tiny(hidden_size=18)
    with pytest.raises(
        UserError, match=r"backbone\.kv_heads: expected a divisor of backbone\.heads=4, got 3"
    ):
        tiny(kv_heads=3)


def test_options_reach_the_model() -> None:
    config = tiny(dropout=0.25, kv_heads=1, context_length=99, tied=False).causal.config
    assert (config.attention_dropout, config.num_key_value_heads) == (0.25, 1)
    assert (config.max_position_embeddings, config.tie_word_embeddings) == (99, False)


def test_dropout_is_on_in_training_and_off_in_eval() -> None:
    backbone, tokens = tiny(dropout=0.5), torch.arange(8)[None]
    mask = torch.ones_like(tokens, dtype=torch.bool)
    assert not torch.equal(backbone(tokens, mask)[0], backbone(tokens, mask)[0])
    backbone.eval()
    assert torch.equal(backbone(tokens, mask)[0], backbone(tokens, mask)[0])


def test_a_tied_copy_stays_tied() -> None:
    clone = copy.deepcopy(tiny(tied=True)).causal
    assert clone.lm_head.weight is clone.model.embed_tokens.weight


def test_a_head_of_a_bfloat16_model_is_float32() -> None:
    backbone = tiny().to(torch.bfloat16)
    head = backbone.head(3)
    hidden, _ = backbone(torch.tensor([[1, 2]]), torch.ones(1, 2, dtype=torch.bool))
    assert hidden.dtype == torch.bfloat16
    assert head(hidden).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert head(hidden).dtype == torch.float32


def test_the_size_that_the_yaml_names() -> None:
    # embedding; a layer: four attention matrices, three of the feed-forward part, two norms; the last norm
    count = 4096 * 256 + 4 * (4 * 256**2 + 3 * 256 * 688 + 2 * 256) + 256
    assert count == 4_212_992
    assert sum(p.numel() for p in Transformer(vocab_size=4096).parameters()) == count
