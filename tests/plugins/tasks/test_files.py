"""Tasks that read files: finding them, naming columns, holding rows out, and refusing by file and line."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedtune.errors import UserError
from feedtune_plugins.tasks.jsonl import Jsonl
from feedtune_plugins.tasks.tables import Csv, Parquet
from feedtune_plugins.tasks.text import Text

ROWS = [{"prompt": f"{n} + {n}?", "reference": str(2 * n)} for n in range(20)]


def jsonl(file: Path, rows: list[Any]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def everything(task: Any) -> list[Any]:
    """The rows of a task that holds nothing out."""
    return list(task.load("train"))


# -- holding out ----------------------------------------------------------------------------------------


def test_a_fraction_is_held_out_the_same_each_time(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ROWS)
    task = Jsonl(path=path, eval_fraction=0.25)
    train, held_out = task.load("train"), task.load("eval")
    assert (len(train), len(held_out)) == (15, 5)
    assert sorted([*train, *held_out], key=ROWS.index) == ROWS
    assert train == [row for row in ROWS if row not in held_out]  # in the file's order
    assert Jsonl(path=path, eval_fraction=0.25).load("eval") == held_out
    assert Jsonl(path=path, eval_fraction=0.25, seed=1).load("eval") != held_out
    assert Jsonl(path=path, eval_fraction=0).load("eval") == []
    assert len(Jsonl(path=path, eval_fraction=0.001).load("eval")) == 1


def test_pairs_that_hold_their_conversation_are_given_it_as_a_column(tmp_path: Path) -> None:
    """So that they can be answered, as in evaluation."""
    asked = {"role": "user", "content": "Hi"}
    said = [{"role": "assistant", "content": text} for text in ("Hello", "Go")]
    row = {"chosen": [asked, said[0]], "rejected": [asked, said[1]]}
    (found,) = everything(Jsonl(path=jsonl(tmp_path / "a.jsonl", [row]), eval_fraction=0))
    assert found == {"messages": [asked], "chosen": said[:1], "rejected": said[1:]}
    with pytest.raises(UserError, match=r"a\.jsonl:1: one of 'chosen' and 'rejected' is the beginning of"):
        Jsonl(path=jsonl(tmp_path / "a.jsonl", [{**row, "rejected": row["chosen"]}])).load("train")


def test_equal_rows_stay_on_one_side(tmp_path: Path) -> None:
    task = Jsonl(path=jsonl(tmp_path / "a.jsonl", ROWS[:4] * 5), eval_fraction=0.5)
    train, held_out = task.load("train"), task.load("eval")
    assert (len(train), len(held_out)) == (
        10,
        2,
    )  # two of the four distinct rows, once; the others five times
    assert not [row for row in train if row in held_out]


def test_eval_path_takes_all_of_its_rows_and_train_none_of_them(tmp_path: Path) -> None:
    path, apart = jsonl(tmp_path / "a.jsonl", ROWS), jsonl(tmp_path / "b.jsonl", ROWS[:3])
    task = Jsonl(path=path, eval_path=apart)
    assert task.load("eval") == ROWS[:3]
    assert task.load("train") == ROWS[3:]
    with pytest.raises(UserError, match="nothing is left to train on, all rows are among the 20 held out"):
        Jsonl(path=path, eval_path=path).load("train")


def test_one_row_cannot_be_split(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", ROWS[:1] * 3)
    with pytest.raises(UserError, match=r"task\.eval_fraction: one distinct row.*task\.eval_path"):
        Jsonl(path=path).load("train")
    assert everything(Jsonl(path=path, eval_fraction=0)) == ROWS[:1] * 3


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(UserError, match=r"task\.eval_fraction: expected"):
        Jsonl(path="a", eval_fraction=fraction)


# -- finding files --------------------------------------------------------------------------------------


def test_file_folder_and_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    jsonl(tmp_path / "b.jsonl", ROWS[:2])
    jsonl(tmp_path / "sub" / "a.ndjson", ROWS[2:4])
    (tmp_path / "notes.txt").write_text("not read")
    assert everything(Jsonl(path=str(tmp_path), eval_fraction=0)) == ROWS[:4]
    monkeypatch.chdir(tmp_path)
    assert everything(Jsonl(path="sub/*", eval_fraction=0)) == ROWS[2:4]
    assert everything(Jsonl(path="**/*json*", eval_fraction=0)) == ROWS[:4]
    assert everything(Jsonl(path="b.jsonl", eval_fraction=0)) == ROWS[:2]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert everything(Jsonl(path="~/b.jsonl", eval_fraction=0)) == ROWS[:2]


def test_what_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    jsonl(tmp_path / "chat.jsonl", ROWS)
    with pytest.raises(
        UserError, match=r"task\.path: no file or folder '.*chta\.jsonl'\. Did you mean '.*chat\.jsonl'"
    ):
        Jsonl(path=str(tmp_path / "chta.jsonl")).load("train")
    with pytest.raises(UserError, match=r"task\.path: the folder '.*' has no file of the kind \.csv, \.tsv"):
        Csv(path=str(tmp_path)).load("train")
    with pytest.raises(UserError, match=r"task\.path: no file fits the pattern '.*\*\.json'"):
        Jsonl(path=str(tmp_path / "*.json")).load("train")
    with pytest.raises(UserError, match=r"task\.eval_path: no file or folder"):
        Jsonl(path=str(tmp_path), eval_path=str(tmp_path / "none")).load("train")


@pytest.mark.parametrize("path", ["", None])
def test_path_must_be_given(path: str | None) -> None:
    with pytest.raises(UserError, match=r"task\.path: not given; .*task\.path=data\.jsonl"):
        Jsonl(path=path).load("train")


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
@pytest.mark.parametrize("kind", [Text, Jsonl, Csv])
def test_empty_file_is_refused_by_name(tmp_path: Path, kind: Any, content: str) -> None:
    file = tmp_path / "a"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=f"task.path: the file '{file}' is empty"):
        kind(path=str(file)).load("train")


# -- columns --------------------------------------------------------------------------------------------


def test_columns_get_new_names(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "a.jsonl",
        [{"question": "Why?", "answer": "So.", "id": 1}, {"question": "Who?", "answer": "Me."}],
    )
    task = Jsonl(path=path, eval_fraction=0, columns={"prompt": "question", "reference": "answer"})
    assert everything(task) == [
        {"id": 1, "prompt": "Why?", "reference": "So."},
        {"prompt": "Who?", "reference": "Me."},
    ]
    swapped = jsonl(tmp_path / "b.jsonl", [{"prompt": "a", "reference": "b"}])
    task = Jsonl(path=swapped, eval_fraction=0, columns={"prompt": "reference", "reference": "prompt"})
    assert everything(task) == [{"prompt": "b", "reference": "a"}]


def test_plain_rows_become_a_chat(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"question": "Why?", "reference": "So."}])
    task = Jsonl(path=path, eval_fraction=0, columns={"prompt": "question"}, chat=True)
    assert everything(task) == [{"messages": [{"role": "user", "content": "Why?"}], "reference": "So."}]


def test_lacking_column_is_named_with_line_and_nearest(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"question": "Why?"}, {"qeustion": "Who?", "id": 2}])
    with pytest.raises(
        UserError, match=r"a\.jsonl:2: no column 'question', found 'qeustion', 'id'\. Did you mean 'qeustion'"
    ):
        Jsonl(path=path, columns={"prompt": "question"}).load("train")
    with pytest.raises(
        UserError, match=r"a\.jsonl:1: expected a column 'prompt', 'messages' or 'text', found 'question'"
    ):
        Jsonl(path=path).load("train")


# -- text -----------------------------------------------------------------------------------------------

BOOK = "\ufeffOne two three.\r\nFour.\r\n\r\n  \r\n\r\nFive six.\r\n\r\n \tSeven \r\n"


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("paragraph", ["One two three.\nFour.", "Five six.", "Seven"]),
        ("line", ["One two three.", "Four.", "Five six.", "Seven"]),
        ("file", ["One two three.\nFour.\n\n  \n\nFive six.\n\n \tSeven"]),
    ],
)
def test_units_of_text(tmp_path: Path, unit: Any, expected: list[str]) -> None:
    (tmp_path / "book.txt").write_bytes(BOOK.encode())
    task = Text(path=str(tmp_path), unit=unit, eval_fraction=0)
    assert everything(task) == [{"text": text} for text in expected]


def test_beginnings_to_continue(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes(BOOK.encode())
    task = Text(path=str(tmp_path), prompt_words=2, eval_fraction=0)
    # "Five six." and "Seven" have nothing after their second word.
    assert everything(task) == [{"prompt": "One two", "reference": " three.\nFour."}]


@given(words=st.lists(st.text("ab.,", min_size=1, max_size=4), min_size=1, max_size=6), cut=st.integers(1, 6))
def test_beginning_and_rest_are_the_whole(words: list[str], cut: int) -> None:
    row = Text(path="a", prompt_words=cut)._row(" ".join(words))
    if cut >= len(words):
        assert row is None
    else:
        assert row == {"prompt": " ".join(words[:cut]), "reference": " " + " ".join(words[cut:])}


def test_bad_options_of_text_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"task\.unit: expected paragraph, line or file, got 'lines'\. Did you mean 'line'"
    ):
        Text(path="a", unit="lines")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"task\.prompt_words: expected null or a number from 1, got 0"):
        Text(path="a", prompt_words=0)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(("kind", "suffix"), [(Text, "txt"), (Csv, "csv"), (Jsonl, "jsonl")])
def test_other_encodings_are_refused_by_line(tmp_path: Path, kind: Any, suffix: str, start: bytes) -> None:
    file = tmp_path / f"a.{suffix}"
    file.write_bytes(start + b'{"text": "good"}\n{"text": "caf\xe9"}\n')  # Latin-1
    with pytest.raises(UserError, match=rf"a\.{suffix}:2: not UTF-8 \(byte 0xe9\)"):
        kind(path=str(file)).load("train")


# -- JSON lines -----------------------------------------------------------------------------------------


def test_jsonl_with_mark_carriage_returns_and_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes('\ufeff{"text": "caf\u00e9\u2028"}\r\n\r\n  \n{"text": "b"}'.encode())
    assert everything(Jsonl(path=str(file), eval_fraction=0)) == [{"text": "caf\u00e9\u2028"}, {"text": "b"}]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": "a"', r"not JSON: Expecting ',' delimiter at column 13"),
        ("text", "not JSON: Expecting value at column 1"),
        ("[", "not JSON: .*one object a line is expected, not a list over several"),
        ('["a"]', "expected a JSON object, got a list"),
        ("3", "expected a JSON object, got a number"),
        ('"a"', "expected a JSON object, got a string"),
        ("true", "expected a JSON object, got a truth value"),
        ("null", "expected a JSON object, got null"),
        ("[" * 100_000, "its JSON is nested too deep"),
        ('{"text": 5}', "'text' must be text, got int"),
        ('{"messages": [{"role": "me", "content": "a"}]}', "message 1: unknown role 'me'"),
        ('{"text": "\\ud800"}', "'text' holds half a surrogate pair"),
    ],
)
def test_bad_lines_are_refused_by_number(tmp_path: Path, line: str, problem: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"text": "a"}}\n\n{line}\n')
    with pytest.raises(UserError, match=rf"a\.jsonl:3: {problem}"):
        Jsonl(path=str(file)).load("train")


# -- tables ---------------------------------------------------------------------------------------------


def test_csv_with_quotes_line_breaks_and_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes('\ufeffprompt,reference\r\n"a, ""b""\r\nc",1\r\n\r\nd,\r\n'.encode())
    assert everything(Csv(path=str(file), eval_fraction=0)) == [
        {"prompt": 'a, "b"\nc', "reference": "1"},
        {"prompt": "d", "reference": ""},
    ]


def test_csv_with_another_delimiter_and_a_long_field(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    file = tmp_path / "a.tsv"
    file.write_text("text\tid\n" + "a" * 200_000 + "\t1\n")
    rows = everything(Csv(path=str(tmp_path), eval_fraction=0, delimiter="\t"))
    assert [(len(row["text"]), row["id"]) for row in rows] == [(200_000, "1")]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            'text,id\n"a\nb",1\nc\n',
            "4: 1 fields, but the first line names 2 columns",
        ),  # a field over two lines
        ("text,id\n\na,1,2\n", "3: 3 fields, but the first line names 2 columns"),
        ("text,text\na,b\n", "1: two columns have the name 'text'"),
        ('text\na\n"b\nc\n', "3: not CSV: unexpected end of data"),
        ('text\n"a"b\n', "2: not CSV: ',' expected after '\"'"),
        ("question\na\n", "2: expected a column 'prompt', 'messages' or 'text', found 'question'"),
    ],
)
def test_bad_csv_is_refused_by_line(tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(content)
    with pytest.raises(UserError, match=rf"a\.csv:{problem}"):
        Csv(path=str(file)).load("train")


@pytest.mark.parametrize("delimiter", ["", ";;", "\n", '"'])
def test_bad_delimiters_are_refused(delimiter: str) -> None:
    with pytest.raises(UserError, match=r"task\.delimiter: expected one character"):
        Csv(path="a", delimiter=delimiter)


def test_parquet(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "id": 1},
        {"messages": [{"role": "user", "content": "Who?"}], "id": 2},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert everything(Parquet(path=str(tmp_path), eval_fraction=0)) == rows
    with pytest.raises(
        UserError, match=r"a\.parquet, row 1: no column 'mesages', found 'messages', 'id'\. Did you mean"
    ):
        Parquet(path=str(tmp_path), columns={"messages": "mesages"}).load("train")
    (tmp_path / "b.parquet").write_text("no table")
    with pytest.raises(UserError, match=r"b\.parquet: cannot be read as Parquet"):
        Parquet(path=str(tmp_path)).load("train")


def test_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"task=parquet needs .*pip install 'feedtune\[data\]'"):
        Parquet(path="a.parquet")
