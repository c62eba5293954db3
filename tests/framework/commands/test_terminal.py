"""What models, data and files say is read in a terminal, not obeyed."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import feedtune as package
from feedtune.commands.evaluate import metrics_table, samples_table
from feedtune.evaluation import Evaluation
from feedtune.sampling import sample
from feedtune.text.visible import UNSEEN, plain
from small_runs import overrides, write_rows

ESCAPES = "\x1b[31m\x1b]0;owned\x07\r\x9b2J\u202e"
"""Red, another title, back to the line's beginning, an empty screen, and from right to left."""


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model knows little but escape sequences."""
    from feedtune.cli import main

    folder = tmp_path_factory.mktemp("coloured")
    rows = [{"prompt": f"\x1b[{n}m", "reference": ESCAPES * 3} for n in range(9)]
    chosen = overrides(
        write_rows(folder, rows), "ngram", "sft", "report=false", f"hydra.run.dir={folder / 'run'}"
    )
    root = logging.getLogger()  # which Hydra sets up anew
    handlers, level = root.handlers[:], root.level
    assert main(["train", *chosen]) == 0
    root.handlers[:], root.level = handlers, level
    return folder / "run"


def test_a_model_that_speaks_in_escape_sequences(coloured: Path, tmp_path: Path, feedtune: Any) -> None:
    loaded = package.load(coloured)
    [response] = sample(
        loaded.policy,
        [loaded.codec.prompt({"prompt": "\x1b[1m"}).tokens],
        max_new_tokens=64,
        eos_ids=loaded.codec.eos_ids,
        generator=torch.Generator().manual_seed(0),
    )
    raw = loaded.codec.response(response.tokens)
    assert UNSEEN.search(raw)  # it does try
    said = feedtune("generate", str(coloured), "\x1b[1m")
    assert said.out == plain(raw) + "\n"
    assert not UNSEEN.search(said.out)
    piped = feedtune("generate", str(coloured), stdin=b"\x1b[1m\n")
    assert piped.out == said.out


def test_tables_show_them_and_files_keep_them(coloured: Path, feedtune: Any) -> None:
    out = coloured / "evaluation.json"
    said = feedtune("evaluate", str(coloured), "--out", str(out))
    assert said.code == 0, said.err
    assert not UNSEEN.search(said.out)
    assert "U+001B" in said.out
    assert "\x1b[" in json.loads(out.read_text())["records"][0]["prompt"]


@given(st.text(alphabet=st.sampled_from(list("[]/\\ bredlinksm=:#\x1b\n\u202e\ud800")), max_size=40))
def test_no_text_is_markup_in_a_table(text: str) -> None:
    record = {"prompt": text, "response": text, "reward": 1.0}
    found = Evaluation({text: 1.0}, [record])
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="truecolor", width=400)
    for table in (metrics_table(found, found), samples_table(found, found)):
        table.show_header = False  # headers are bold
        console.print(table)
    shown = file.getvalue()
    assert "\x1b[" not in shown.replace("\x1b[0m", "")
    for line in plain(text).split("\n"):
        assert line.strip() in shown


def test_an_error_that_quotes_data(rows: Path, feedtune: Any) -> None:
    (rows.parent / "bad.jsonl").write_text(json.dumps({ESCAPES: 1, "a": "b"}) + "\n")
    chosen = overrides(Path("bad.jsonl"), "ngram", "sft", "report=false", "hydra.run.dir=run")
    said = feedtune("train", *chosen)
    assert said.code == 2
    assert "found 'U+001B[31mU+001B]0;ownedU+0007" in said.err
    assert not UNSEEN.search(said.err)


def test_markup_in_a_pipeline_is_shown_as_it_was_typed(rows: Path, feedtune: Any) -> None:
    """Rich would take `[/b]` for the end of bold and fail, and leave `[please]` out."""
    lines = [
        one for one in overrides(Path("rows.jsonl"), "ngram", "ppo") if "{" not in one and "reward" not in one
    ]
    lines += ["reward=keyword", "reward.words=[please]", "task.eval_path=rows.jsonl", "run_dir='[/b]'"]
    stages = "{tune: {command: train, arguments: [" + ",".join(json.dumps(line) for line in lines) + "]}}"
    said = feedtune("pipeline", "dir=out", "~stages", f"+stages={stages}")
    assert "reward.words=[please]" in said.err.replace("\n", "")
    assert "run_dir='[/b]'" in said.err.replace("\n", "")


@pytest.mark.parametrize(
    "text", ["plain", "a\nb\tc", "\N{GREEK SMALL LETTER ALPHA} \N{HEBREW LETTER ALEF} 你好"]
)
def test_ordinary_text_stays(text: str) -> None:
    assert plain(text) == text
