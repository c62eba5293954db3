"""The chitchat task: what becomes of conversations, and that nothing held out is trained on."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedtune.errors import UserError
from feedtune_plugins.tasks import chitchat
from feedtune_plugins.tasks.chitchat import Chitchat


def utterances(*said: tuple[str, str]) -> dict[str, Any]:
    """A chat as the package stores it: blocks of what one person says, which may follow one another."""
    return {"messages": [[{"sender": sender, "text": text, "timestamp": ""}] for sender, text in said]}


@pytest.fixture
def chats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a package with these chats in the place of the real one."""

    def use(*found: dict[str, Any]) -> None:
        (tmp_path / "dataset.json").write_text(json.dumps({str(n): chat for n, chat in enumerate(found)}))
        (tmp_path / "__init__.py").touch()
        spec = importlib.util.spec_from_file_location("chitchat_dataset", tmp_path / "__init__.py")
        assert spec is not None
        monkeypatch.setitem(sys.modules, "chitchat_dataset", importlib.util.module_from_spec(spec))

    return use


def said(rows: Any) -> list[list[str]]:
    return [[message["content"] for message in row["messages"]] for row in rows]


def test_what_one_person_says_in_a_row_is_one_message(chats: Callable[..., None]) -> None:
    chats(
        utterances(
            ("x", " Hello "),
            ("x", "there"),
            ("y", "Hi"),
            ("y", "  "),
            ("x", ""),
            ("y", "you?"),
            ("x", "Fine"),
        ),
        utterances(("x", "Anybody?"), ("x", "No")),  # nobody answered: no conversation
        utterances(),
    )
    assert chitchat.conversations() == [["Hello there", "Hi you?", "Fine"]]


def test_whole_conversations_end_with_the_assistant(chats: Callable[..., None]) -> None:
    chats(utterances(("x", "A"), ("y", "B"), ("x", "C")), utterances(("x", "D"), ("y", "E")))
    rows = Chitchat(turns=None, eval_rows=0).load("train")
    assert sorted(said(rows)) == [["A", "B"], ["D", "E"]]  # nobody answers C
    assert [message["role"] for message in rows[0]["messages"]] == ["user", "assistant"]


def test_windows_answer_each_message_once(chats: Callable[..., None]) -> None:
    chats(utterances(("x", "A"), ("y", "B"), ("x", "C"), ("y", "D"), ("x", "E")))
    assert said(Chitchat(turns=2, eval_rows=0).load("train")) == [
        ["A", "B"],
        ["B", "C"],
        ["C", "D"],
        ["D", "E"],
    ]
    assert said(Chitchat(turns=4, eval_rows=0).load("train")) == [["A", "B", "C", "D"], ["B", "C", "D", "E"]]
    roles = {
        tuple(m["role"] for m in row["messages"]) for row in Chitchat(turns=4, eval_rows=0).load("train")
    }
    assert roles == {("user", "assistant", "user", "assistant")}


def test_overlong_messages_part_a_conversation(chats: Callable[..., None]) -> None:
    chats(
        utterances(
            ("x", "a"), ("y", "b b"), ("x", "c c c"), ("y", "d"), ("x", "e"), ("y", "f"), ("x", "g g g")
        )
    )
    rows = said(Chitchat(max_words=2, eval_rows=0).load("train"))
    assert rows == [["a", "b b"], ["d", "e"]]
    longer = said(Chitchat(max_words=2, min_messages=3, eval_rows=0).load("train"))
    assert longer == [["d", "e"]]


def test_lower_case(chats: Callable[..., None]) -> None:
    chats(utterances(("x", "HELLO"), ("y", "Hi")))
    assert said(Chitchat(lowercase=True, eval_rows=0).load("train")) == [["hello", "hi"]]


def test_held_out_prompts_are_asked_nowhere_else(chats: Callable[..., None]) -> None:
    # "Hi" opens four chats, so it is nobody's own; each chat has another prompt that is.
    opening = [utterances(("x", "Hi"), ("y", f"I am {n}"), ("x", "Good")) for n in range(4)]
    chats(*opening)
    task = Chitchat(turns=2, eval_rows=2)
    held_out, train = said(task.load("eval")), said(task.load("train"))
    assert len(held_out) == 2
    assert all(prompt.startswith("I am") for prompt, _ in held_out)
    assert len(train) == 2  # both rows of one chat: three are kept from training
    assert not {row[0] for row in held_out} & {row[0] for row in train}


def test_seed_alone_decides_who_is_held_out(chats: Callable[..., None]) -> None:
    chats(*(utterances(("x", f"Who is {n}?"), ("y", "Me")) for n in range(40)))
    held_out = Chitchat(eval_rows=10).load("eval")
    assert Chitchat(eval_rows=10).load("eval") == held_out
    assert Chitchat(eval_rows=10, seed=1).load("eval") != held_out


def test_stages_with_rows_of_other_lengths_hold_out_the_same_conversations() -> None:
    """Pretraining on whole conversations must not have seen what tuning on pairs is measured on."""
    whole = Chitchat(turns=None, max_words=None, lowercase=True)
    pairs = Chitchat(turns=2, max_words=20, lowercase=True)
    longer = Chitchat(turns=4, max_words=30, lowercase=True)
    for measured in (pairs, longer):
        held_out = {tuple(row[-2:]) for row in said(measured.load("eval"))}
        assert len(held_out) == 256
        for trained in (whole, pairs, longer):
            rows = said(trained.load("train"))
            assert not held_out & {tuple(row[at : at + 2]) for row in rows for at in range(len(row) - 1)}


def test_real_conversations() -> None:
    talks = chitchat.conversations()
    assert len(talks) == 4017  # of 7,168, 3,151 have one speaker
    task = Chitchat(turns=2, max_words=30, eval_rows=100)
    train, held_out = task.load("train"), task.load("eval")
    assert len(held_out) == 100
    assert len(train) > 80_000
    prompts = {row[0] for row in said(held_out)}
    assert len(prompts) == 100
    assert not prompts & {row[0] for row in said(train)}
    assert max(len(text.split()) for row in said(train) for text in row) == 30


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"turns": 3}, r"task\.turns: expected an even number from 2.*got 3"),
        ({"turns": 0}, r"task\.turns: expected an even number from 2.*got 0"),
        ({"max_words": 0}, r"task\.max_words: expected a number from 1, got 0"),
        ({"min_messages": 1}, r"task\.min_messages: expected a number from 2, got 1"),
        ({"eval_rows": -1}, r"task\.eval_rows: expected a number from 0, got -1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, int], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        Chitchat(**options)


def test_more_held_out_than_there_is_is_refused(chats: Callable[..., None]) -> None:
    chats(utterances(("x", "A"), ("y", "B")), utterances(("x", "C"), ("y", "D")))
    with pytest.raises(UserError, match=r"task\.eval_rows: 2 rows want 1\.5 times as many .*there are 2"):
        Chitchat(eval_rows=2).load("train")


def test_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chitchat_dataset", None)
    with pytest.raises(UserError, match=r"pip install 'feedtune\[chitchat\]'"):
        Chitchat().load("train")


def test_unknown_split_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="'train' or 'eval', got 'test'"):
        Chitchat().load("test")
