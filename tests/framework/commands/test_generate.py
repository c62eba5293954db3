"""`feedtune generate`: one text, many lines, a conversation; and texts that cannot be answered."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import feedtune as package
from feedtune.sampling import sample


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


def test_one_text(lstm_run: Path, feedtune: Any) -> None:
    said = feedtune("generate", str(lstm_run), "1+2=", "--max-new-tokens", "6")
    assert said.code == 0
    loaded = package.load(lstm_run)
    [response] = sample(
        loaded.policy,
        [loaded.codec.prompt({"prompt": "1+2="}).tokens],
        max_new_tokens=6,
        eos_ids=loaded.codec.eos_ids,
        generator=torch.Generator().manual_seed(0),
    )
    assert said.out == loaded.codec.response(response.tokens) + "\n"


def test_an_export_folder_speaks_too(lstm_run: Path, feedtune: Any) -> None:
    whole = feedtune("generate", str(lstm_run), "1+2=")
    assert feedtune("generate", str(lstm_run / "export"), "1+2=") == whole


def test_other_seeds_other_answers_and_greedy_has_none(lstm_run: Path, feedtune: Any) -> None:
    def answers(*flags: str) -> set[str]:
        return {feedtune("generate", str(lstm_run), "1+2=", *flags, "--seed", str(s)).out for s in range(6)}

    assert len(answers()) > 1
    assert len(answers("--greedy")) == 1
    assert answers("--top-k", "1") == answers("--greedy")
    assert answers("--temperature", "0.001") == answers("--greedy")
    assert answers("--top-p", "0.001") == answers("--greedy")


def test_a_repetition_penalty_lets_nothing_be_said_twice(lstm_run: Path, feedtune: Any) -> None:
    """Logits of what was said are pressed down so far that every next character is a new one."""
    flags = ["--greedy", "--max-new-tokens", "5", "--repetition-penalty", "1000000"]
    plain = feedtune("generate", str(lstm_run), "1+2=", *flags[:3]).out.strip()
    fresh = feedtune("generate", str(lstm_run), "1+2=", *flags).out.strip()
    assert fresh != plain
    assert len(set(fresh)) == len(fresh)


def test_every_line_of_a_file_or_of_standard_input(lstm_run: Path, tmp_path: Path, feedtune: Any) -> None:
    text = "1+1=\n\n  \n2+2=\n"
    (tmp_path / "questions.txt").write_text("\N{BYTE ORDER MARK}" + text)
    piped = feedtune("generate", str(lstm_run), "--greedy", stdin=text.encode())
    assert (piped.code, len(piped.out.splitlines())) == (0, 2)
    assert feedtune("generate", str(lstm_run), "--greedy", "--file", str(tmp_path / "questions.txt")) == piped
    alone = [feedtune("generate", str(lstm_run), "--greedy", one).out for one in ("1+1=", "2+2=")]
    assert piped.out == "".join(alone)


def test_an_empty_text_is_continued(lstm_run: Path, feedtune: Any) -> None:
    assert feedtune("generate", str(lstm_run), "").code == 0


def test_a_conversation_remembers(
    transformer_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feedtune: Any
) -> None:
    """The second question is put to the model with the first one and its answer before it."""
    chat = tmp_path / "chat"
    shutil.copytree(transformer_run / "export", chat)
    record = json.loads((chat / "feedtune.json").read_text())
    (chat / "feedtune.json").write_text(json.dumps({**record, "chat": True}))
    asked: list[Any] = []
    prompt = package.Codec.prompt
    monkeypatch.setattr(package.Codec, "prompt", lambda codec, row: asked.append(row) or prompt(codec, row))
    said = feedtune("generate", str(chat), "hi", "--system", "Add.", "--max-new-tokens", "2")
    assert asked == [{"messages": [{"role": "system", "content": "Add."}, {"role": "user", "content": "hi"}]}]
    assert said.code == 0

    asked.clear()
    monkeypatch.setattr(sys, "stdin", Terminal("1+1=\n2+2=\n\nnever read\n"))
    from feedtune.cli import main

    assert main(["generate", str(chat), "--max-new-tokens", "2"]) == 0
    first, second = (row["messages"] for row in asked)
    assert first == [{"role": "user", "content": "1+1="}]
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert second[0] == first[0]
    assert second[2]["content"] == "2+2="

    asked.clear()
    feedtune("generate", str(chat), "hi", "--plain")
    assert asked == [{"prompt": "hi"}]


def test_the_end_of_input_ends_the_conversation(
    lstm_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from feedtune.cli import main

    monkeypatch.setattr(sys, "stdin", Terminal("1+1=\n"))
    assert main(["generate", str(lstm_run)]) == 0
    assert capsys.readouterr().out.startswith("Say something; an empty line or Ctrl-D ends.\n> ")


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (["nowhere", "hi"], b"", ["nowhere: there is no such folder"]),
        ([".", "hi"], b"", [".: not a run or export folder of feedtune"]),
        (["RUN"], b"", ["standard input: there is no text in it"]),
        (["RUN"], b" \n\n", ["standard input: there is no text in it"]),
        (["RUN"], b"hi\n\xe9\n", ["standard input, line 2: not UTF-8 (byte 0xe9)"]),
        (["RUN", "--file", "nowhere.txt"], b"", ["--file nowhere.txt: cannot be read: No such file"]),
        (["RUN", "--file", "."], b"", ["--file .: cannot be read"]),
        (["RUN", "hi", "--temperature", "0"], b"", ["--temperature", "above 0, got 0.0; see --greedy"]),
        (["RUN", "hi", "--temperature", "nan"], b"", ["--temperature", "got nan"]),
        (["RUN", "hi", "--top-p", "2"], b"", ["top_p: expected a number in (0, 1], got 2.0"]),
        (["RUN", "hi", "--top-k", "0"], b"", ["top_k: expected at least 1, got 0"]),
        (["RUN", "hi", "--max-new-tokens", "0"], b"", ["--max-new-tokens: expected at least 1, got 0"]),
        (["RUN", "\ud800"], b"", ["half a surrogate pair"]),
    ],
)
def test_what_cannot_be_answered(
    arguments: list[str], stdin: bytes, words: list[str], lstm_run: Path, rows: Path, feedtune: Any
) -> None:
    said = feedtune("generate", *[a.replace("RUN", str(lstm_run)) for a in arguments], stdin=stdin)
    assert said.code == 2
    assert said.err.startswith("feedtune: ")
    assert said.err.count("\n") == 1
    assert [word for word in words if word not in said.err] == [], said.err


def test_a_text_longer_than_the_context(transformer_run: Path, feedtune: Any) -> None:
    said = feedtune("generate", str(transformer_run), "1" * 64)
    assert (said.code, said.err) == (2, "feedtune: the text has 64 tokens; the model's context holds 64\n")
    assert feedtune("generate", str(transformer_run), "1" * 63).code == 0  # room for one more
