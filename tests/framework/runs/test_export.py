"""Policies on disk: what is saved comes back to the bit, and what cannot be trusted does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import feedtune
from feedtune.contracts import Backbone
from feedtune.errors import UserError
from feedtune.policy import Policy
from feedtune.runs.export import RECORD, load, load_heads, save
from feedtune.text.codec import Codec
from feedtune.text.tokenizers import TrainedTokenizer
from feedtune_plugins.algorithms import QPolicy
from feedtune_plugins.backbones.hf import HF

HEADS = {"none": {}, "value": {"value": 1}, "two": {"value": 1, "other": 3}}


@pytest.fixture(scope="module")
def codec() -> Codec:
    """Eight tokens or so; the tiny backbones of conftest.py know eleven."""
    return TrainedTokenizer(kind="char", vocab_size=11, stop=["!"]).build(lambda: ["ab!"])


def randomise(policy: Policy) -> Policy:
    """Heads start at 0, which would hide one that was forgotten."""
    generator = torch.Generator().manual_seed(1)
    for parameter in policy.heads.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return policy


def same(one: Policy, other: Policy) -> bool:
    """All weights, the same names, and what they compute."""
    mine, theirs = one.state_dict(), other.state_dict()
    tokens, mask = torch.tensor([[1, 4, 2]]), torch.ones(1, 3, dtype=torch.bool)
    logits = [policy.eval().action_logits(policy(tokens, mask)[0]) for policy in (one, other)]
    equal = mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    return equal and torch.equal(*logits)


@pytest.mark.parametrize("heads", HEADS)
def test_every_backbone_comes_back_with_its_heads(
    heads: str, backbone: Backbone, codec: Codec, tmp_path: Path
) -> None:
    policy = randomise(Policy(backbone, HEADS[heads], temperature=0.7))
    assert save(policy, codec, tmp_path / "export", chat=False) == tmp_path / "export"
    loaded = load(tmp_path)
    assert same(policy, loaded.policy)
    assert loaded.policy.temperature == 0.7
    assert not loaded.chat
    assert not loaded.policy.training
    assert loaded.codec.tokenizer.get_vocab() == codec.tokenizer.get_vocab()
    assert loaded.codec.stop == ("!",)
    assert (tmp_path / "export" / "heads.safetensors").exists() == (heads != "none")


def test_a_policy_of_a_plugin_comes_back_as_its_own_class(
    tiny_backbone: Callable[[str], Backbone], codec: Codec, tmp_path: Path
) -> None:
    policy = randomise(QPolicy(tiny_backbone("gru"), temperature=0.5, epsilon=0.25))
    loaded = load(save(policy, codec, tmp_path))
    assert isinstance(loaded.policy, QPolicy)
    assert loaded.policy.epsilon == 0.25
    assert loaded.chat
    assert same(policy, loaded.policy)


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_pretrained_model_comes_back(
    lora: dict[str, Any] | None, model_folder: Path, tmp_path: Path
) -> None:
    codec = Codec.load(model_folder)
    backbone = HF(vocab_size=codec.vocab_size, name=str(model_folder), lora=lora)
    policy = randomise(Policy(backbone, {"value": 1}))
    for parameter in policy.backbone.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1
    loaded = load(save(policy, codec, tmp_path))
    assert same(policy, loaded.policy)
    assert (tmp_path / "model.safetensors").exists() == (lora is None)
    assert (tmp_path / "adapter_model.safetensors").exists() == (lora is not None)


def test_tied_weights_stay_tied(
    tiny_backbone: Callable[[str], Backbone], codec: Codec, tmp_path: Path
) -> None:
    loaded = load(save(Policy(tiny_backbone("transformer")), codec, tmp_path)).policy.backbone
    model: Any = loaded.model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


# What transformers makes of an export


def test_generate_of_transformers_stops_where_the_policy_would(transformer_run: Path, tmp_path: Path) -> None:
    """The model is bent so that its first choice is end-of-text: then one new token comes, not ten."""
    export = tmp_path / "export"
    shutil.copytree(transformer_run / "export", export)
    loaded = feedtune.load(export)
    [end] = loaded.codec.eos_ids
    model = AutoModelForCausalLM.from_pretrained(export)
    assert model.generation_config.eos_token_id == end
    assert model.generation_config.pad_token_id == loaded.codec.pad_id
    prompt = torch.tensor([loaded.codec.prompt({"prompt": "1+2="}).tokens])
    with torch.no_grad():
        hidden = model.base_model(prompt).last_hidden_state[0, -1]
        embedding = model.get_input_embeddings().weight.clone()
        model.set_output_embeddings(torch.nn.Linear(*reversed(embedding.shape), bias=False))
        model.get_output_embeddings().weight.zero_()
        model.get_output_embeddings().weight[end] = hidden  # logit |hidden|^2 > 0, and 0 for all others
    mask = torch.ones_like(prompt)
    spoken = model.generate(prompt, attention_mask=mask, max_new_tokens=10, do_sample=False)
    assert spoken[0].tolist() == [*prompt[0].tolist(), end]


def test_several_ends_are_a_list_and_other_settings_of_the_model_stay(
    tiny_backbone: Callable[[str], Backbone], codec: Codec, tmp_path: Path
) -> None:
    ends = (codec.eos_ids[0], codec.tokenizer.get_vocab()["!"])
    several = Codec(codec.tokenizer, eos_ids=ends)
    backbone = tiny_backbone("transformer")
    backbone.model.generation_config.repetition_penalty = 1.5  # type: ignore[union-attr]
    save(Policy(backbone), several, tmp_path)
    written = json.loads((tmp_path / "generation_config.json").read_text())
    assert written["eos_token_id"] == list(ends)
    assert written["pad_token_id"] == several.pad_id
    assert written["repetition_penalty"] == 1.5
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.eos_token_id == list(ends)


def test_other_backbones_have_no_generation_config(
    tiny_backbone: Callable[[str], Backbone], codec: Codec, tmp_path: Path
) -> None:
    save(Policy(tiny_backbone("lstm")), codec, tmp_path)
    assert not (tmp_path / "generation_config.json").exists()


# What is refused


@pytest.fixture
def export(tiny_backbone: Callable[[str], Backbone], codec: Codec, tmp_path: Path) -> Path:
    return save(randomise(Policy(tiny_backbone("lstm"), {"value": 1})), codec, tmp_path / "export")


def rewrite(export: Path, **changes: Any) -> None:
    record = json.loads((export / RECORD).read_text())
    for key, value in changes.items():
        part, _, name = key.partition("__")
        if name:
            record[part][name] = value
        else:
            record[part] = value
    (export / RECORD).write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, r"feedtune\.json: expected format 1, got 2$"),
        ({"format": None}, r"feedtune\.json: expected format 1, got None$"),
        ({"policy": None}, r"feedtune\.json: it says nothing of the policy; feedtune did not write it$"),
        ({"backbone": {"class": "x"}}, r"feedtune\.json: it says nothing of the backbone"),
        ({"backbone__class": "os.system"}, r"backbone\.class: 'os\.system' is not trusted"),
        ({"policy__class": "builtins.eval"}, r"policy\.class: 'builtins\.eval' is not trusted"),
        (
            {"backbone__class": "feedtune.runs.export.load"},
            r"backbone\.class: 'feedtune\.runs\.export\.load' is no part of a run; ",
        ),
        ({"backbone__class": "feedtune.policy.Policy"}, r"backbone\.class: '.*Policy' is no backbone$"),
        ({"policy__class": "feedtune.errors.UserError"}, r"policy\.class: '.*UserError' is no policy$"),
        ({"backbone__class": "feedtune_plugins.nowhere.It"}, r"backbone\.class: cannot import"),
        ({"backbone__class": 3}, r"backbone\.class: expected the dotted path of a class"),
    ],
    ids=str,
)
def test_a_record_that_cannot_be_followed(changes: dict[str, Any], message: str, export: Path) -> None:
    rewrite(export, **changes)
    with pytest.raises(UserError, match=message) as caught:
        load(export)
    assert "\n" not in str(caught.value)
    assert str(export) in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (RECORD, b"{", r"feedtune\.json: cannot be read"),
        (RECORD, b"[]", r"feedtune\.json: expected format 1, got None"),
        (RECORD, b"\xff", r"feedtune\.json: cannot be read"),
        ("backbone.safetensors", b"no weights", r"the backbone's weights cannot be read"),
        ("backbone.safetensors", None, r"the backbone's weights cannot be read"),
        ("heads.safetensors", b"no weights", r"heads\.safetensors: cannot be read"),
        ("codec.json", b"{}", r"codec\.json: not a codec that feedtune wrote"),
    ],
)
def test_a_damaged_export_is_one_line(file: str, content: bytes | None, message: str, export: Path) -> None:
    if content is None:
        (export / file).unlink()
    else:
        (export / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load(export)
    assert "\n" not in str(caught.value)


def test_weights_of_another_size_are_refused(export: Path) -> None:
    record = json.loads((export / RECORD).read_text())
    rewrite(export, backbone__config={**record["backbone"]["config"], "hidden_size": 20})
    with pytest.raises(UserError, match=r"the backbone's weights cannot be read"):
        load(export)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([], r"not a run or export folder of feedtune \(no feedtune\.json, no export/feedtune\.json\)$"),
        ([".hydra"], r"the run ended before its first checkpoint, so there is no policy in it$"),
        ([".hydra", "checkpoints/step-00000004"], r"the run has not ended yet; go on with: feedtune resume "),
    ],
)
def test_a_folder_without_a_policy_says_why(made: list[str], message: str, tmp_path: Path) -> None:
    for name in made:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UserError, match=message):
        load(tmp_path)
    with pytest.raises(UserError, match=r"nowhere: there is no such folder$"):
        load(tmp_path / "nowhere")


def test_heads_are_taken_by_name_and_shape(tiny_backbone: Callable[[str], Backbone], export: Path) -> None:
    saved = load(export).policy.heads["value"]
    policy = Policy(tiny_backbone("lstm"), {"value": 1, "new": 2})
    load_heads(policy, export)
    assert torch.equal(policy.heads["value"].weight, saved.weight)  # type: ignore[arg-type]
    assert not policy.heads["new"].weight.any()  # type: ignore[operator]
    wider = Policy(tiny_backbone("lstm"), {"value": 3})
    load_heads(wider, export)
    assert not wider.heads["value"].weight.any()  # type: ignore[operator]
