"""`feedtune export` writes what transformers loads by itself, and refuses by name what it cannot write."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import feedtune
from feedtune.cli import main
from small_runs import overrides, run, write_rows


def greedy(folder: Path, tokens: list[int], adapter: Path | None = None) -> list[int]:
    """What transformers says to these tokens, without feedtune."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).eval()
    for _ in range(4):
        with torch.no_grad():
            tokens = [*tokens, int(model(torch.tensor([tokens])).logits[0, -1].argmax())]
    return tokens


def test_a_transformer_with_its_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "run", overrides(write_rows(tmp_path), "transformer", "ppo"))
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out" / "model")]) == 0
    assert capsys.readouterr().out == f"transformers folder: {tmp_path / 'out' / 'model'}\n"
    codec = feedtune.load(tmp_path / "run").codec
    tokens = list(codec.prompt({"prompt": "1+2="}).tokens)
    assert greedy(tmp_path / "out" / "model", tokens) == greedy(tmp_path / "run" / "export", tokens)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "model")
    assert tokenizer.get_vocab() == codec.tokenizer.get_vocab()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's own
def test_an_adapter_is_worked_into_the_model(tmp_path: Path) -> None:
    data = write_rows(tmp_path)
    run(tmp_path / "first", overrides(data, "transformer", "sft"))
    base = tmp_path / "first" / "export"
    chosen = ["algorithm=reinforce", "backbone=hf", f"backbone.name={base}", "backbone.lora={rank: 4}"]
    chosen += ["task=jsonl", f"task.path={data}", "reward=length", "callbacks=quiet", "optimizer.lr=0.05"]
    chosen += ["collector.responses=8", "collector.max_new_tokens=4", "trainer.max_epochs=3"]
    run(tmp_path / "second", chosen)
    assert main(["export", str(tmp_path / "second"), str(tmp_path / "merged")]) == 0
    tokens = list(feedtune.load(tmp_path / "second").codec.prompt({"prompt": "1+2="}).tokens)
    said = greedy(tmp_path / "merged", tokens)
    assert said == greedy(base, tokens, adapter=tmp_path / "second" / "export")
    with torch.no_grad():
        whole, old = (AutoModelForCausalLM.from_pretrained(f) for f in (tmp_path / "merged", base))
        assert (whole(torch.tensor([tokens])).logits - old(torch.tensor([tokens])).logits).abs().max() > 1e-3


def test_a_model_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "run", overrides(write_rows(tmp_path), "lstm", "sft"))
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    assert "its backbone Recurrent is no model of transformers" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    assert f"{tmp_path / 'out'}: expected a new or empty folder" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out" / "mine.txt")]) == 2
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "not a run or export folder of feedtune" in capsys.readouterr().err
