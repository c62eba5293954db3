"""The command line in this process, rows on disk, and a tiny pretrained model."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from feedtune.cli import main
from feedtune.text.tokenizers import TrainedTokenizer, texts_of
from small_runs import ROWS, overrides, run, write_rows


@dataclass(frozen=True)
class Said:
    """What a command left behind in the terminal."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@contextmanager
def own_logging() -> Iterator[None]:
    """Undo what Hydra does to the root logger: it writes to a terminal and a file that end with a test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def feedtune(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """`feedtune("train", "algorithm=ppo")`: the command line, in this process.

    Standard input is empty unless bytes are given as `stdin`.
    """

    def call(*arguments: str, stdin: bytes = b"") -> Said:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return Said(code, out, err)

    with own_logging():
        yield call


@pytest.fixture(autouse=True)
def own_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what was imported from a test's own folder: the next test has files of the same names."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """rows.jsonl in the working directory, which is empty otherwise."""
    monkeypatch.chdir(tmp_path)
    return write_rows(tmp_path)


@pytest.fixture(scope="session")
def lstm_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as `feedtune train` leaves it, of a tiny LSTM; not to be written into."""
    folder = tmp_path_factory.mktemp("lstm_run")
    data = write_rows(folder)
    chosen = overrides(data, "lstm", "ppo", "report=false", f"hydra.run.dir={folder / 'run'}")
    with own_logging():
        assert main(["train", *chosen]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def transformer_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny transformer without `.hydra`; not to be written into."""
    folder = tmp_path_factory.mktemp("transformer_run")
    run(folder / "run", overrides(write_rows(folder), "transformer", "ppo"))
    return folder / "run"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain transformers folder: a tiny Llama and a tokenizer of characters that has no pad token."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = TrainedTokenizer(kind="char", vocab_size=64).build(lambda: texts_of(ROWS)).tokenizer
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder
