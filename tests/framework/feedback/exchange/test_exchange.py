"""JSON lines out and in: nothing is lost on the way, and other programs find the columns that they know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedtune.errors import UserError
from feedtune.feedback import Answer, Event, FeedbackStore, Item, Kind, item_of, one_time_id, response_of
from feedtune.feedback.exchange.exporting import FILES, exported, write_export
from feedtune.feedback.exchange.importing import Imported, read_files
from feedtune.feedback.exchange.lines import read_lines, write_lines
from feedtune.text.conversation import check_row
from feedtune.text.pairs import answered

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
SUM = item_of(
    "1+1?",
    [response_of("1+1?", "2", run="one", checkpoint="f00d"), response_of("1+1?", "3", run="two")],
    columns={"reference": "2", "level": 1.5, "deep": {"list": [None, True]}},
)
CHAT = item_of("1+1?", [response_of("1+1?", "2"), response_of("1+1?", "22")], messages=MESSAGES)
GROUP = item_of(
    "odd \ud800\u2028?", [response_of("odd \ud800\u2028?", f"{n}\udfff", run="one") for n in range(4)]
)
TWINS = item_of("twins?", [response_of("twins?", "same", run=run) for run in ("one", "two")])


def said(item: Item, kind: Kind, value: Any, about: tuple[int, ...], **more: Any) -> Answer:
    shown = tuple(item.responses[n].id for n in about)
    fields = {"id": one_time_id(), "rater": "ann", "time": "2026-01-31T12:00:00+01:00", **more}
    return Answer(item=item.id, kind=kind, responses=shown, value=value, **fields)


ANSWERS = [
    said(SUM, "comparison", "a", (0, 1), tags=("easy", "naïve 🦀")),
    said(SUM, "comparison", "b", (0, 1), rater="bob", by="judge"),
    said(SUM, "comparison", "a", (1, 0), rater="cat", by="simulated"),
    said(CHAT, "comparison", "b", (1, 0), time="2026-01-31T12:00:00Z"),
    said(CHAT, "comparison", "tie", (0, 1), rater="bob"),
    said(CHAT, "comparison", "both_bad", (1, 0), rater="cat"),
    said(GROUP, "comparison", "a", (3, 1)),
    said(GROUP, "comparison", "skip", (0, 2)),
    said(GROUP, "rating", 4.5, (2,)),
    said(CHAT, "rating", 1, (0,)),
    said(GROUP, "edit", "one \ud800\n", (0,)),
    said(CHAT, "edit", "It is 2.", (1,)),
    said(SUM, "comment", "why?", (1,)),
    said(SUM, "comment", "why?", (1,)),
    said(TWINS, "comparison", "b", (0, 1)),
    said(TWINS, "rating", 2, (1,)),
]
LONELY = [
    item_of("nobody?", [response_of("nobody?", "")]),
    item_of("1+1?", CHAT.responses, messages=MESSAGES[1:]),
]
EVENTS = [
    Event(id="e1", response=SUM.responses[0].id, kind="shown", propensity=0.5, time="2026-01-31T12:00:00Z"),
    Event(id="e2", response=SUM.responses[0].id, kind="click", position=3, time="2026-01-31T12:00:01Z"),
    Event(id="e3", response="unknown", kind="dwell", value=-1.5, time="2026-01-31T12:00:02Z"),
]


@pytest.fixture
def store(tmp_path: Path) -> FeedbackStore:
    made = FeedbackStore(tmp_path / "feedback.sqlite")
    made.add([SUM, CHAT, GROUP, TWINS, *LONELY])
    assert made.answer_all(ANSWERS) == len(ANSWERS)
    made.log(EVENTS)
    return made


def imported(path: Path, into: Path) -> FeedbackStore:
    store = FeedbackStore(into)
    read_files([path]).put(store)
    return store


def by_id(records: list[Any]) -> dict[str, Any]:
    return {one.id: one for one in records}


# Out and in again


def test_all_comes_back_identical(store: FeedbackStore, tmp_path: Path) -> None:
    written = write_export(exported(store), tmp_path / "out")
    assert {path.stem: count for path, count in written.items()} == {
        "comparisons": 5,
        "undecided": 1,
        "ratings": 2,
        "edits": 1,
        "comments": 2,
        "unanswered": 1,
        "events": 3,
        "chat_comparisons": 1,
        "chat_undecided": 2,
        "chat_ratings": 1,
        "chat_edits": 1,
        "chat_unanswered": 1,
    }
    again = imported(tmp_path / "out", tmp_path / "again.sqlite")
    assert by_id(again.items()) == by_id(store.items())
    assert by_id(again.answers()) == by_id(store.answers())
    assert again.events() == store.events()
    assert exported(again).keys() == exported(store).keys()


def test_importing_again_changes_nothing(store: FeedbackStore, tmp_path: Path) -> None:
    write_export(exported(store), tmp_path / "out")
    assert read_files([tmp_path / "out"]).put(store) == (0, 0, 0)
    first = ANSWERS[0]
    assert store.retract(first.id, "ann")
    assert read_files([tmp_path / "out"]).put(store) == (0, 0, 0)  # what was taken back stays so


TEXTS = st.text(st.characters(), max_size=12).filter(lambda text: json.loads(json.dumps(text)) == text)


@settings(max_examples=20, deadline=None)
@given(
    prompt=TEXTS,
    texts=st.lists(TEXTS, min_size=2, max_size=3, unique=True),
    value=st.sampled_from(["a", "b", "tie", "skip"]),
    chat=st.booleans(),
    column=TEXTS,
)
def test_any_comparison_comes_back(
    prompt: str,
    texts: list[str],
    value: str,
    chat: bool,
    column: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    messages = [{"role": "user", "content": prompt}] if chat else []
    item = item_of(
        prompt, [response_of(prompt, text) for text in texts], messages=messages, columns={column: column}
    )
    store = FeedbackStore(folder / "feedback.sqlite")
    store.add([item])
    store.answer(said(item, "comparison", value, (1, 0)))
    write_export(exported(store), folder / "out")
    found = read_files([folder / "out"])
    assert found == Imported(items=[item], answers=store.answers())


# What others find


def test_comparisons_have_the_columns_of_preferences(store: FeedbackStore) -> None:
    rows = exported(store)["comparisons"]
    first, second, third, chat = rows[0], rows[1], rows[2], rows[-1]
    assert (first["prompt"], first["chosen"], first["rejected"]) == ("1+1?", "2", "3")
    assert (first["chosen_run"], first["rejected_run"]) == ("one", "two")
    assert (first["rater"], first["by"], first["tags"]) == ("ann", "person", ["easy", "naïve 🦀"])
    assert (second["chosen"], third["chosen"]) == ("3", "3")  # b of (2, 3), and a of (3, 2)
    assert chat["prompt"] == MESSAGES
    assert chat["chosen"] == [{"role": "assistant", "content": "2"}]  # b of (22, 2)
    assert chat["rejected"] == [{"role": "assistant", "content": "22"}]
    for number, row in enumerate(rows):
        if row["prompt"] != GROUP.prompt:  # half a letter is nothing that a tokenizer can read
            check_row(row, f"row {number}")
            answered(row, "chosen", f"row {number}")


def test_ratings_and_edits_have_theirs(store: FeedbackStore) -> None:
    rows = exported(store)
    chat = next(row for row in rows["ratings"] if row["prompt"] == MESSAGES)
    assert (chat["completion"], chat["rating"]) == ([{"role": "assistant", "content": "2"}], 1)
    assert [
        (row["completion"], row["rating"], row["run"]) for row in rows["ratings"] if row["run"] == "two"
    ] == [("same", 2, "two")]
    edit = next(row for row in rows["edits"] if row["prompt"] == MESSAGES)
    assert edit["reference"] == "It is 2."
    assert [row["choice"] for row in rows["undecided"]] == ["tie", "both_bad", "skip"]


def test_the_rows_are_a_table_that_datasets_reads(store: FeedbackStore, tmp_path: Path) -> None:
    """Every row of a file has the same columns, of the same types; conversations have files of their own."""
    import datasets

    some = FeedbackStore(tmp_path / "some.sqlite")  # without half letters, which datasets does not read
    some.add([SUM, TWINS, CHAT])
    some.answer_all(one for one in ANSWERS if one.item in (SUM.id, TWINS.id))
    some.answer_all([ANSWERS[3], said(CHAT, "rating", 2, (0,))])
    for path, count in write_export(exported(some), tmp_path / "out").items():
        rows = [line.row for line in read_lines(path)]
        assert {tuple(row) for row in rows} == {tuple(rows[0])}
        table = datasets.load_dataset(
            "json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
        )
        found = table.remove_columns("time").to_list()  # which it reads as a date
        assert found == [{name: one for name, one in row.items() if name != "time"} for row in rows]
        assert len(table) == count


def test_of_one_rater_there_is_only_what_this_one_said(store: FeedbackStore) -> None:
    rows = exported(store, rater="bob")
    assert {name: len(some) for name, some in rows.items() if some} == {"comparisons": 1, "undecided": 1}
    assert exported(store, ["ratings"]).keys() == {"ratings"}
    with pytest.raises(
        UserError, match=r"^expected some of comparisons, .*, got 'rating'\. Did you mean 'ratings'\?"
    ):
        exported(store, ["rating"])
    assert set(exported(store)) == set(FILES)


def test_others_may_answer_meanwhile(store: FeedbackStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item that is added and answered while the store is read is in the export or not; nothing breaks."""
    read = {"items": FeedbackStore.items, "answers": FeedbackStore.answers}
    new = (item_of(f"new {n}?", [response_of(f"new {n}?", "yes")]) for n in range(9))

    def meanwhile(name: str) -> Callable[..., Any]:
        def first(self: FeedbackStore, *args: Any) -> Any:
            found, item = read[name](self, *args), next(new)
            self.add([item])
            self.answer(said(item, "rating", 3, (0,)))
            return found

        return first

    for name in read:
        monkeypatch.setattr(FeedbackStore, name, meanwhile(name))
    assert len(exported(store)["ratings"]) == 3


# What others have collected


def only(*rows: dict[str, Any]) -> Callable[[Path], Imported]:
    def read(folder: Path) -> Imported:
        write_lines(folder / "theirs.jsonl", rows)
        return read_files([folder / "theirs.jsonl"])

    return read


SAME = {"role": "user", "content": "Hi"}
FOREIGN: dict[str, tuple[dict[str, Any], Item, str, Any]] = {
    "preferences": (
        {"prompt": "1+1?", "chosen": "2", "rejected": "3", "source": "web"},
        item_of("1+1?", [response_of("1+1?", "2"), response_of("1+1?", "3")], columns={"source": "web"}),
        "comparison",
        "a",
    ),
    "an implicit prompt": (
        {"chosen": "Q: 1+1? A: 2", "rejected": "Q: 1+1? A: 3"},
        item_of("Q: 1+1? A:", [response_of("Q: 1+1? A:", text) for text in (" 2", " 3")]),
        "comparison",
        "a",
    ),
    "conversations": (
        {
            "chosen": [SAME, {"role": "assistant", "content": "Hello"}],
            "rejected": [SAME, {"role": "assistant", "content": "Go"}],
        },
        item_of("Hi", [response_of("Hi", text) for text in ("Hello", "Go")], messages=[SAME]),
        "comparison",
        "a",
    ),
    "a tie": (
        {"prompt": "1+1?", "response_a": "2", "response_b": "3", "choice": "tie"},
        item_of("1+1?", [response_of("1+1?", "2"), response_of("1+1?", "3")]),
        "comparison",
        "tie",
    ),
    "a rating": (
        {"prompt": "1+1?", "completion": "2", "rating": 4.5, "run": "one"},
        item_of("1+1?", [response_of("1+1?", "2", run="one")]),
        "rating",
        4.5,
    ),
    "an edit": (
        {"messages": [SAME], "response": {"role": "assistant", "content": "Go"}, "reference": "Hello"},
        item_of("Hi", [response_of("Hi", "Go")], messages=[SAME]),
        "edit",
        "Hello",
    ),
    "a comment": (
        {"prompt": "1+1?", "response": "2", "comment": "right"},
        item_of("1+1?", [response_of("1+1?", "2")]),
        "comment",
        "right",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_others_have_collected_is_understood(name: str, tmp_path: Path) -> None:
    row, item, kind, value = FOREIGN[name]
    found = only(row)(tmp_path)
    assert found.items == [item]
    [answer] = found.answers
    assert (answer.item, answer.kind, answer.value, answer.rater) == (item.id, kind, value, "imported")
    again = only(row)(tmp_path)
    assert again.answers[0].id == answer.id  # importing it twice counts once
    assert only({**row, "rater": "bob"})(tmp_path).answers[0].id != answer.id


def test_rater_time_and_tags_of_others_are_kept(tmp_path: Path) -> None:
    row = {
        **FOREIGN["a rating"][0],
        "rater": "bob",
        "by": "judge",
        "time": "2026-01-31T12:00:00Z",
        "tags": ["x"],
    }
    [answer] = only(row)(tmp_path).answers
    assert (answer.rater, answer.by, answer.time, answer.tags) == (
        "bob",
        "judge",
        "2026-01-31T12:00:00Z",
        ("x",),
    )


def test_rows_that_only_ask_are_items(tmp_path: Path) -> None:
    several, one = {"prompt": "1+1?", "responses": ["2", "3", "4"]}, {"prompt": "1+1?", "completion": "2"}
    runs = {"prompt": "1+1?", "responses": [{"text": "2", "run": "one"}, {"text": "2", "run": "two"}]}
    found = only(several, one, runs)(tmp_path)
    assert [[response.text for response in item.responses] for item in found.items] == [
        list("234"),
        ["2"],
        ["2", "2"],
    ]
    assert [response.run for response in found.items[2].responses] == ["one", "two"]
    assert found.answers == []


def test_events_with_what_was_shown_bring_the_item(tmp_path: Path) -> None:
    shown = {
        "kind": "shown",
        "prompt": "1+1?",
        "text": "2",
        "time": "2026-01-31T12:00:00Z",
        "propensity": 0.5,
    }
    found = only(shown)(tmp_path)
    assert found.items == [item_of("1+1?", [response_of("1+1?", "2")])]
    assert found.events[0].response == found.items[0].responses[0].id


def test_a_row_of_ours_that_somebody_has_changed_is_a_new_answer_to_the_same_question(
    store: FeedbackStore, tmp_path: Path
) -> None:
    rows = exported(store)
    rating = next(row for row in rows["ratings"] if row["run"] == "one")
    choice = rows["comparisons"][0]
    changed = [
        {**rating, "rating": 2},
        {**choice, "chosen": choice["rejected"], "rejected": choice["chosen"]},
    ]
    found = only(changed[1])(tmp_path)
    assert found.items == [SUM]
    assert found.put(store) == (0, 1, 0)
    mine = [one for one in store.answers(["comparison"], "ann") if one.item == SUM.id]
    assert [(one.responses, one.value, one.tags) for one in mine] == [
        ((SUM.responses[1].id, SUM.responses[0].id), "a", ("easy", "naïve 🦀"))
    ]
    assert only(changed[0])(tmp_path).answers[0].value == 2


def test_a_response_that_somebody_has_rewritten_is_another_one(store: FeedbackStore, tmp_path: Path) -> None:
    row = {**exported(store)["comparisons"][0], "chosen": "two"}
    [item] = only(row)(tmp_path).items
    assert [one.text for one in item.responses] == ["two", "3"]
    assert item.responses[1] == SUM.responses[1]
    assert item.id != SUM.id


def test_ids_that_are_not_those_of_the_content_are_not_believed(store: FeedbackStore, tmp_path: Path) -> None:
    row = exported(store)["comparisons"][0]
    forged = {**row, "responses": [{**row["responses"][0], "text": "9"}, row["responses"][1]], "chosen": "9"}
    [item] = only(forged)(tmp_path).items
    assert {one.id for one in item.responses}.isdisjoint({SUM.responses[0].id})


# What cannot be read


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"not JSON: Expecting property name .* at column 2"),
        ("[1]", "expected a JSON object, got a list"),
        ("[" * 100_000, "its JSON is nested too deep"),
        ('{"prompt": ' + "1" * 5000 + "}", "a number with too many digits"),
        ('{"a": 1}', "expected a column 'prompt' or 'messages', found 'a'"),
        ('{"prompt": "x"}', "no response: expected chosen and rejected, response_a"),
        ('{"prompt": "x", "responses": []}', "no response"),
        ('{"prompt": "x", "responses": 5}', "no response"),
        ('{"prompt": "x", "responses": [5]}', "a response must be text or one message, got int"),
        ('{"prompt": "x", "responses": ["a", "a"]}', None),
        ('{"prompt": "x", "response": ["a", "b"]}', "a response must be text or one message, got 2 messages"),
        ('{"prompt": 5, "response": "a"}', "'prompt' must be text or a list of messages, got"),
        ('{"prompt": [5], "response": "a"}', "message 1"),
        ('{"prompt": "x", "chosen": "a", "rejected": 5}', "must both be texts or both be messages"),
        ('{"prompt": "x", "chosen": "a", "rejected": "a"}', "the two responses of a comparison are the same"),
        (
            '{"prompt": "x", "completion": "a", "rating": NaN}',
            "value: expected a number from 1 to 5, got nan",
        ),
        ('{"prompt": "x", "completion": "a", "rating": 6}', "value: expected a number from 1 to 5, got 6"),
        (
            '{"prompt": "x", "completion": "a", "rating": "4"}',
            "value: expected a number from 1 to 5, got '4'",
        ),
        ('{"prompt": "x", "completion": "a", "rating": 4, "tags": "x"}', "'tags' must be a list of texts"),
        ('{"prompt": "x", "completion": "a", "rating": 4, "rater": 7}', "rater: expected 1 to 200 printable"),
        ('{"prompt": "x", "completion": "a", "rating": 4, "time": 7}', "time: expected a time with its zone"),
        ('{"prompt": "x", "completion": "a", "score": NaN}', "'columns' holds what JSON cannot say"),
        ('{"kind": "click", "response": "r", "time": "noon"}', "time: expected a time with its zone"),
        (
            '{"prompt": "x", "item": "i", "columns": "[", "responses": '
            '[{"id": "1", "text": "a", "run": null, "checkpoint": null}]}',
            None,
        ),
    ],
)
def test_a_line_that_is_nothing_is_named(line: str, message: str | None, tmp_path: Path) -> None:
    file = tmp_path / "theirs.jsonl"
    file.write_text('{"prompt": "1+1?", "response": "2"}\n\n' + line + "\n")
    if message is None:
        assert len(read_files([file]).items) == 2
        return
    with pytest.raises(UserError, match=message) as caught:
        read_files([file])
    assert str(caught.value).startswith(f"{file}:3: ")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"theirs\.jsonl: cannot be read: No such file or directory$"):
        read_files([tmp_path / "theirs.jsonl"])
    with pytest.raises(UserError, match=r"the folder has no file that ends in \.jsonl$"):
        read_files([tmp_path])
    (tmp_path / "latin.jsonl").write_bytes(b'\n{"prompt": "caf\xe9"}')
    with pytest.raises(UserError, match=r"latin\.jsonl:2: not UTF-8 \(byte 0xe9\); save the file as UTF-8$"):
        read_files([tmp_path])


def test_lines_end_at_newlines_alone(tmp_path: Path) -> None:
    """Texts may hold other separators as they are."""
    row = {"prompt": "a\u2028b\x85c\x0bd\re\n", "response": "x"}
    assert write_lines(tmp_path / "deep" / "rows.jsonl", [row, row]) == 2
    assert [line.row for line in read_lines(tmp_path / "deep" / "rows.jsonl")] == [row, row]
    (tmp_path / "marked.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert [line.where for line in read_lines(tmp_path / "marked.jsonl")] == [f"{tmp_path}/marked.jsonl:1"]


def test_a_place_that_cannot_be_written_is_named(store: FeedbackStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot be made: "):
        write_export(exported(store), tmp_path / "file")
