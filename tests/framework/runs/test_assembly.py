"""From a config to the parts of a run: what `init_from` brings, and what does not go with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import feedtune
from feedtune.config.compose import compose_config
from feedtune.config.trust import resolve
from feedtune.errors import UserError
from feedtune.runs import starting_point
from feedtune.runs.assembly import OPTIONAL, assemble, checked
from feedtune_plugins.backbones.hf import HF
from feedtune_plugins.backbones.recurrent import Recurrent
from small_runs import ROLLOUT, overrides, run, write_rows


@pytest.fixture
def base(tmp_path: Path) -> list[str]:
    """Overrides of a tiny run that say nothing of its backbone and tokenizer."""
    data = write_rows(tmp_path)
    return ["task=jsonl", f"task.path={data}", "reward=length", "callbacks=quiet", *ROLLOUT]


def parts(folder: Path, *chosen: str) -> Any:
    return assemble(checked(compose_config(chosen), folder))


def test_checking_leaves_the_config_as_it_was(tmp_path: Path, base: list[str]) -> None:
    config = compose_config(base)
    before = OmegaConf.to_yaml(config)
    assert checked(config, tmp_path).run_dir == str(tmp_path)
    assert OmegaConf.to_yaml(config) == before


def test_the_seed_decides_the_first_weights(tmp_path: Path) -> None:
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo")
    one, same, other = (parts(tmp_path, *chosen, f"seed={seed}").module for seed in (3, 3, 4))
    weights = [module.policy.backbone.embedding.weight for module in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("group", OPTIONAL)
def test_optional_groups_may_be_left_out(group: str, tmp_path: Path) -> None:
    write_rows(tmp_path)
    chosen = overrides(tmp_path / "rows.jsonl", "lstm", "sft", "trainer.max_epochs=1")
    run(tmp_path / "run", [*chosen, f"~{group}"])
    assert (tmp_path / "run" / "metrics.csv").exists() == (group != "callbacks")
    assert (tmp_path / "run" / "checkpoints").exists() == (group != "checkpoint")
    assert feedtune.load(tmp_path / "run").policy.backbone.vocab_size > 0


def test_no_training_or_held_out_rows(tmp_path: Path, base: list[str]) -> None:
    found = parts(tmp_path, *base, "task.eval_fraction=0")
    with pytest.raises(UserError, match=r"^the task has no held-out rows to evaluate on"):
        found.eval_rows()
    assert not found.chat


def test_a_task_of_conversations_is_a_chat(tmp_path: Path, base: list[str]) -> None:
    assert parts(tmp_path, *base, "task.chat=true").chat


# init_from: a run of feedtune


def test_a_run_brings_its_backbone_and_tokenizer(tmp_path: Path, base: list[str], lstm_run: Path) -> None:
    found = parts(tmp_path, *base, f"init_from={lstm_run}")
    loaded = feedtune.load(lstm_run)
    assert isinstance(found.module.policy.backbone, Recurrent)
    assert found.codec.tokenizer.get_vocab() == loaded.codec.tokenizer.get_vocab()
    for name, value in loaded.policy.state_dict().items():  # heads too
        assert torch.equal(value, found.module.policy.state_dict()[name]), name


def test_its_export_folder_does_as_well(tmp_path: Path, base: list[str], lstm_run: Path) -> None:
    found = parts(tmp_path, *base, f"init_from={lstm_run / 'export'}")
    assert isinstance(found.module.policy.backbone, Recurrent)


def test_an_algorithm_without_that_head_leaves_it(tmp_path: Path, base: list[str], lstm_run: Path) -> None:
    found = parts(tmp_path, *base, f"init_from={lstm_run}", "algorithm=q_learning")
    assert list(found.module.policy.heads) == ["q"]


def test_naming_the_same_backbone_is_no_contradiction(
    tmp_path: Path, base: list[str], lstm_run: Path
) -> None:
    same = ["backbone=lstm", "backbone.embed_size=12", "backbone.hidden_size=16", "backbone.layers=1"]
    found = parts(tmp_path, *base, *same, "tokenizer=char", f"init_from={lstm_run}")
    assert isinstance(found.module.policy.backbone, Recurrent)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["backbone=gru"], r"^backbone\.cell: gru is not lstm\. init_from=.* brings its own backbone"),
        (["backbone=ngram"], r"^backbone: feedtune_plugins\.\S*NGram is not \S*Recurrent\."),
        (["backbone.layers=9"], r"^backbone: \S*Transformer is not \S*Recurrent\."),
        (["backbone=hf", "backbone.name=x"], r"^backbone: \S*HF is not \S*Recurrent\."),
    ],
)
def test_another_backbone_beside_a_run_is_refused(
    chosen: list[str], message: str, tmp_path: Path, base: list[str], lstm_run: Path
) -> None:
    with pytest.raises(UserError, match=message):
        parts(tmp_path, *base, *chosen, f"init_from={lstm_run}")


def test_another_tokenizer_beside_a_run_is_taken_if_it_spells_the_same(
    tmp_path: Path, base: list[str], lstm_run: Path
) -> None:
    """Trained on the same text it has the same vocabulary, and the user's system prompt."""
    chosen = ["tokenizer=char", "tokenizer.system_prompt=Count."]
    found = parts(tmp_path, *base, *chosen, f"init_from={lstm_run}")
    assert found.codec.system_prompt == "Count."
    assert feedtune.load(lstm_run).codec.system_prompt is None


def test_a_tokenizer_that_spells_otherwise_is_refused(
    tmp_path: Path, base: list[str], lstm_run: Path
) -> None:
    with pytest.raises(
        UserError, match=r"^tokenizer: its \d+ tokens are not the \d+ of init_from="
    ) as caught:
        parts(tmp_path, *base, "tokenizer=word", f"init_from={lstm_run}")
    assert "leave the tokenizer out" in str(caught.value)


def test_as_many_tokens_that_mean_something_else_are_refused_too(tmp_path: Path, base: list[str]) -> None:
    """Sizes fit, but what was the number of 'a' is now that of 'b'."""
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(f'{{"prompt": "{name}"}}\n{{"prompt": "{name * 2}"}}\n')
    first = overrides(tmp_path / "a.jsonl", "gru", "ppo", "task.eval_fraction=0", "trainer.max_epochs=1")
    run(tmp_path / "first", first)
    other = [f"task.path={tmp_path / 'b.jsonl'}", "task.eval_fraction=0", "tokenizer=char"]
    message = r"^tokenizer: its (\d+) tokens are not the \1 of .*the first to differ is 'a', number"
    with pytest.raises(UserError, match=message):
        parts(tmp_path, *base, *other, f"init_from={tmp_path / 'first'}")


def test_a_run_that_has_not_ended_cannot_be_gone_on_from(
    tmp_path: Path, base: list[str], lstm_run: Path
) -> None:
    half = tmp_path / "half"
    shutil.copytree(lstm_run, half)
    (half / "export" / "feedtune.json").unlink()
    with pytest.raises(UserError, match=r"half: the run has not ended yet; go on with: feedtune resume "):
        parts(tmp_path, *base, f"init_from={half}")


# init_from: a model that others have saved


def test_a_transformers_folder_is_opened_by_hf(tmp_path: Path, base: list[str], model_folder: Path) -> None:
    found = parts(tmp_path, *base, f"init_from={model_folder}")
    backbone = found.module.policy.backbone
    assert isinstance(backbone, HF)
    assert backbone.config["name"] == str(model_folder)
    assert found.codec.vocab_size == backbone.vocab_size


def test_its_other_options_are_the_users(tmp_path: Path, base: list[str], model_folder: Path) -> None:
    chosen = ["backbone=hf", "backbone.lora={rank: 2}", "backbone.dtype=bfloat16"]
    found = parts(tmp_path, *base, *chosen, f"init_from={model_folder}")
    assert found.module.policy.backbone.config["lora"]["rank"] == 2
    assert found.module.policy.backbone.causal.dtype == torch.bfloat16


def test_a_backbone_that_cannot_be_imported_opens_nothing_and_stops_nobody(
    tmp_path: Path, base: list[str], model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str, key: str) -> Any:
        if path.endswith("NGram"):
            raise UserError(f"{key}: cannot import '{path}'")
        return resolve(path, key)

    monkeypatch.setattr(starting_point, "resolve", broken)
    found = parts(tmp_path, *base, f"init_from={model_folder}")
    assert isinstance(found.module.policy.backbone, HF)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            ["backbone=lstm"],
            r"^backbone: \S*Recurrent does not open init_from=.*, but backbone=hf does; leave",
        ),
        (["backbone=hf", "backbone.name=elsewhere"], r"^backbone\.name: elsewhere and init_from=.*give one"),
        (["tokenizer=word"], r"^tokenizer: its \d+ tokens are not the \d+ of init_from="),
    ],
)
def test_what_does_not_go_with_a_transformers_folder(
    chosen: list[str], message: str, tmp_path: Path, base: list[str], model_folder: Path
) -> None:
    with pytest.raises(UserError, match=message):
        parts(tmp_path, *base, *chosen, f"init_from={model_folder}")


def test_a_tokenizer_that_knows_more_than_the_model(
    tmp_path: Path, base: list[str], model_folder: Path
) -> None:
    """Without files of its own tokenizer to compare with, the sizes still have to fit."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(model_folder / name, bare)
    config = json.loads((bare / "config.json").read_text())
    chosen = [f"init_from={bare}", "tokenizer=bpe", "tokenizer.min_frequency=1"]
    with pytest.raises(UserError, match=rf"the tokenizer has \d+ tokens, but .* {config['vocab_size']}"):
        parts(tmp_path, *base, *chosen)
