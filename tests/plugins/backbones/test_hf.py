"""Pretrained models: sizes, precision, adapters, gradient checkpointing, and what is said on failure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from feedtune.errors import UserError
from feedtune.testing.backbones import equal_backbones, gradients, nudged, random_rows, read
from feedtune_plugins.backbones.hf import HF


def load(folder: Path, **options: Any) -> HF:
    return HF(vocab_size=options.pop("vocab_size", 64), name=str(folder), **options)


def test_logits_are_the_models_own(tiny_llama: Path) -> None:
    backbone, model = load(tiny_llama).eval(), AutoModelForCausalLM.from_pretrained(tiny_llama)
    row = random_rows(backbone, [9])[0]
    with torch.no_grad():
        assert torch.equal(backbone.unembed(read(backbone, row)), model(row[None]).logits[0])


def test_rows_that_only_fill_up_the_embedding_are_cut_off(tiny_llama: Path) -> None:
    backbone, whole = load(tiny_llama, vocab_size=50), load(tiny_llama)
    row = random_rows(backbone, [3])[0]
    logits = backbone.unembed(read(backbone, row))
    assert logits.shape == (3, 50)
    assert torch.equal(logits, whole.unembed(read(whole, row))[:, :50])


def test_a_tokenizer_that_knows_more_than_the_model_is_refused_with_both_numbers(tiny_llama: Path) -> None:
    with pytest.raises(UserError, match=r"the tokenizer has 65 tokens, but '.*' has embeddings for 64"):
        load(tiny_llama, vocab_size=65)


def test_precision(tiny_llama: Path) -> None:
    assert load(tiny_llama, dtype="bfloat16").causal.dtype == torch.bfloat16
    assert load(tiny_llama, dtype="auto").causal.dtype == torch.float32  # as it was saved
    with pytest.raises(UserError, match=r"backbone\.dtype: .* got 'bf16'\. Did you mean 'bfloat16'\?"):
        load(tiny_llama, dtype="bf16")


def test_a_folder_in_the_home_folder(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny_llama.parent))
    equal_backbones(HF(vocab_size=64, name=f"~/{tiny_llama.name}"), load(tiny_llama))


def test_it_loads_without_bars(tiny_llama: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert logging.is_progress_bar_enabled()
    load(tiny_llama)
    assert "Loading" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()


def test_attention_is_chosen_by_name(tiny_llama: Path) -> None:
    assert load(tiny_llama, attn_implementation="eager").causal.config._attn_implementation == "eager"


# What fails, and what is said


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "~/nowhere", "a/b/c"])
def test_a_folder_that_is_not_there(name: str) -> None:
    with pytest.raises(UserError, match=rf"^backbone\.name: no such folder: '{name}'$"):
        HF(vocab_size=64, name=name)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^backbone\.name: no config\.json in '.*', so it is no transformers"
    ):
        load(tmp_path)


def test_a_run_folder_is_told_from_its_export(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "export").symlink_to(tiny_llama)
    with pytest.raises(UserError, match=r"Did you mean '.*export'\?$"):
        load(tmp_path)


def test_an_adapter_is_no_model(tiny_llama: Path, tmp_path: Path) -> None:
    load(tiny_llama, lora={}).save(tmp_path)
    with pytest.raises(UserError, match=r"It holds an adapter: name its base model here"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", "{"),
        ("config.json", '{"model_type": "nonsense"}'),
        ("model.safetensors", "not weights"),
        ("model.safetensors", None),
    ],
)
def test_a_broken_folder_is_one_line(file: str, text: str | None, tiny_llama: Path, tmp_path: Path) -> None:
    for source in tiny_llama.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    if text is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=r"^backbone\.name: cannot load '.*': .+$") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"^backbone\.name: cannot load 'nobody/nothing-at-all': .+$"):
        HF(vocab_size=64, name="nobody/nothing-at-all")


# Adapters


def test_a_fresh_adapter_changes_nothing_and_trains_alone(tiny_llama: Path) -> None:
    adapted, plain = load(tiny_llama, lora={"rank": 3}), load(tiny_llama)
    equal_backbones(adapted, plain)
    trained = [(name, weight.shape) for name, weight in adapted.named_parameters() if weight.requires_grad]
    # two layers, seven linear maps each (q k v o, gate up down), a pair of matrices for each; not lm_head
    assert len(trained) == 2 * 7 * 2
    assert all("lora_" in name and 3 in shape for name, shape in trained)
    assert adapted.adapter_off is not None
    assert plain.adapter_off is None
    assert plain.rebuilt_keys() == frozenset()


def test_options_of_the_adapter(tiny_llama: Path) -> None:
    backbone = load(tiny_llama, lora={"rank": 3, "alpha": 6, "dropout": 0.5, "target_modules": ["q_proj"]})
    options = backbone.model.peft_config["default"]
    assert (options.r, options.lora_alpha, options.lora_dropout) == (3, 6, 0.5)
    assert sum(weight.requires_grad for weight in backbone.parameters()) == 2 * 2
    assert backbone.config["lora"] == {
        "rank": 3,
        "alpha": 6,
        "dropout": 0.5,
        "target_modules": ["q_proj"],
    }


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({"rnak": 3}, r"backbone\.lora: unknown key 'rnak'; .* Did you mean 'rank'\?"),
        (True, r"backbone\.lora: expected null or a mapping such as \{rank: 16\}, got True"),
        ({"rank": 0}, r"backbone\.lora\.rank: expected a whole number of at least 1, got 0"),
        ({"rank": "many"}, r"backbone\.lora\.rank: .* got 'many'"),
        ({"target_modules": ["nope"]}, r"backbone\.lora\.target_modules: .*nope"),
    ],
)
def test_wrong_options_of_the_adapter(lora: Any, words: str, tiny_llama: Path) -> None:
    with pytest.raises(UserError, match=words):
        load(tiny_llama, lora=lora)


def test_an_adapter_beside_a_bfloat16_model_is_float32(tiny_llama: Path) -> None:
    backbone = load(tiny_llama, dtype="bfloat16", lora={})
    kinds = {(weight.requires_grad, weight.dtype) for weight in backbone.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    assert read(backbone, random_rows(backbone, [2])[0]).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's own
def test_an_adapters_export_loads_with_peft_and_transformers_alone(tiny_llama: Path, tmp_path: Path) -> None:
    backbone = nudged(load(tiny_llama, lora={"rank": 2}))
    backbone.save(tmp_path)
    assert {"adapter_model.safetensors", "adapter_config.json"} <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model, row = peft.PeftModel.from_pretrained(base, tmp_path), random_rows(backbone, [5])[0]
    with torch.no_grad():
        assert torch.equal(model(row[None]).logits[0], backbone.unembed(read(backbone, row)))


def test_a_loaded_adapter_is_trained_on_and_is_no_identity(tiny_llama: Path, tmp_path: Path) -> None:
    backbone = nudged(load(tiny_llama, lora={"rank": 2}))
    backbone.save(tmp_path)
    loaded = HF.load(tmp_path, backbone.config)
    assert loaded.adapter_off is None
    assert loaded.rebuilt_keys() == backbone.rebuilt_keys()
    assert sum(weight.requires_grad for weight in loaded.parameters()) == 2 * 7 * 2


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_the_merged_model_says_the_same_and_leaves_the_adapter(
    lora: dict[str, Any] | None, tiny_llama: Path, tmp_path: Path
) -> None:
    backbone = nudged(load(tiny_llama, lora=lora))
    row = random_rows(backbone, [5])[0]
    with torch.no_grad():
        before = backbone.unembed(read(backbone, row))
        backbone.merged(tmp_path)
        model = AutoModelForCausalLM.from_pretrained(tmp_path)
        torch.testing.assert_close(model(row[None]).logits[0], before, rtol=1e-5, atol=1e-5)
        assert torch.equal(backbone.unembed(read(backbone, row)), before)


def test_an_adapter_on_gpt2s_transposed_layers(tmp_path: Path) -> None:
    GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    ).save_pretrained(tmp_path)
    backbone = load(tmp_path, lora={"rank": 2})
    # c_attn 16 -> 48, c_proj 16 -> 16, c_fc 16 -> 64, c_proj 64 -> 16: rank times the sum of both sides
    trained = sum(weight.numel() for weight in backbone.parameters() if weight.requires_grad)
    assert trained == 2 * ((16 + 48) + (16 + 16) + (16 + 64) + (64 + 16))
    equal_backbones(backbone, load(tmp_path))


def test_without_peft_the_extra_is_named(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"backbone\.lora needs the package 'peft'.*feedtune\[lora\]"):
        load(tiny_llama, lora={"rank": 2})


# Gradient checkpointing


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_recomputed_activations_give_the_same_gradient(lora: dict[str, Any] | None, tiny_llama: Path) -> None:
    torch.manual_seed(0)
    plain = load(tiny_llama, lora=lora)
    torch.manual_seed(0)
    checkpointed = load(tiny_llama, lora=lora, gradient_checkpointing=True)
    tokens = torch.stack(random_rows(plain, [6, 6]))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    expected, found = gradients(plain, tokens, mask), gradients(checkpointed, tokens, mask)
    assert expected.keys() == found.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_activations_are_recomputed(tiny_llama: Path) -> None:
    backbone = load(tiny_llama, gradient_checkpointing=True)
    runs: list[int] = []
    backbone.causal.model.layers[0].input_layernorm.register_forward_hook(lambda *_: runs.append(1))
    tokens = torch.stack(random_rows(backbone, [6]))
    gradients(backbone, tokens, torch.ones_like(tokens, dtype=torch.bool))
    assert len(runs) == 2


def test_a_training_pass_that_recomputes_has_no_state(tiny_llama: Path) -> None:
    backbone = load(tiny_llama, gradient_checkpointing=True)
    tokens = torch.stack(random_rows(backbone, [4]))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    assert backbone.train()(tokens, mask)[1] is None
    state = backbone.eval()(tokens, mask)[1]
    backbone.train()
    with pytest.raises(UserError, match=r"backbone\.gradient_checkpointing: .* cannot go on from a state"):
        backbone(tokens, mask, state)
