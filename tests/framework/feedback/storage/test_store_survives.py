"""The store under force: killed writers, several at once, files that are damaged, full or not ours."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feedtune.errors import UserError
from feedtune.feedback import Answer, FeedbackStore, Item, item_of, now, response_of

ITEM = item_of("1+1?", [response_of("1+1?", "2"), response_of("1+1?", "3")])
A, B = (one.id for one in ITEM.responses)
TIME = "2026-01-31T12:00:00Z"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "feedback.sqlite"


def filled(path: Path) -> FeedbackStore:
    store = FeedbackStore(path)
    store.add([ITEM])
    store.answer(said("one", "a"))
    return store


def said(name: str, value: str, rater: str = "ann") -> Answer:
    return Answer(
        id=name, item=ITEM.id, kind="comparison", responses=(A, B), value=value, rater=rater, time=TIME
    )


def remark(number: int, rater: str = "ann") -> Answer:
    return Answer(
        id=f"{rater} {number}",
        item=ITEM.id,
        kind="comment",
        responses=(A,),
        value="x" * 500,
        rater=rater,
        time=TIME,
    )


# Killed and crowded

WRITER = f"""
import sys
from feedtune.feedback import Answer, FeedbackStore, item_of, response_of
store = FeedbackStore(sys.argv[1])
item = item_of("1+1?", [response_of("1+1?", "2"), response_of("1+1?", "3")])
store.add([item])
for number in range(int(sys.argv[3])):
    said = Answer(id=f"{{sys.argv[2]}} {{number}}", item=item.id, kind="comment", value="x" * 500,
                  responses=(item.responses[0].id,), rater=sys.argv[2], time="{TIME}")
    assert store.answer(said)
    print(number, flush=True)
"""


def writer(path: Path, rater: str, count: int) -> subprocess.Popen[str]:
    """A process that comments so often, and says each time when it has been thanked."""
    command = [sys.executable, "-c", WRITER, str(path), rater, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("after", [1, 4, 9])
def test_whatever_was_thanked_for_survives_sigkill(path: Path, after: int) -> None:
    """Killed at some moment of its writing, it leaves all that it was thanked for and at most one more."""
    process = writer(path, "ann", 10_000)
    assert process.stdout is not None
    for _ in range(after):
        process.stdout.readline()
    time.sleep(0.003 * after)  # somewhere in the middle of a write
    process.send_signal(signal.SIGKILL)
    thanked = after + len(process.stdout.read().splitlines())
    assert process.wait(timeout=60) == -signal.SIGKILL
    process.stdout.close()
    store = FeedbackStore(path)
    kept = [one.id for one in store.answers()]
    assert kept == [f"ann {number}" for number in range(len(kept))]
    assert thanked <= len(kept) <= thanked + 1
    assert not store.answer(remark(0))  # a client that was not thanked sends again: it counts once
    assert store.answer(remark(len(kept)))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_processes_write_at_once_into_a_file_that_none_has_made(path: Path) -> None:
    processes = [writer(path, rater, 25) for rater in ("ann", "bob", "cat")]
    for process in processes:
        assert process.communicate(timeout=120)[0].count("\n") == 25
        assert process.returncode == 0
    assert FeedbackStore(path).raters() == [(name, "person", 25) for name in ("ann", "bob", "cat")]
    assert FeedbackStore(path).items() == [ITEM]


def test_the_same_click_by_many_threads_counts_once(path: Path) -> None:
    store, taken = filled(path), list[bool]()
    click = said("click", "b", rater="bob")
    threads = [threading.Thread(target=lambda: taken.append(store.answer(click))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(taken) == [False] * 11 + [True]
    assert store.answers(rater="bob") == [click]


def test_readers_do_not_wait_for_a_writer_and_writers_say_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedtune.database.PATIENCE", 0.05)
    store = filled(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert len(store.answers()) == 1
        with pytest.raises(UserError, match=r"^feedback\.path: .* cannot be used: database is locked$"):
            store.answer(said("two", "b"))


def test_what_breaks_off_in_the_middle_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(path)

    def broken(*args: object) -> str:
        raise KeyboardInterrupt  # after the earlier answer has been deleted, before the later one is there

    with monkeypatch.context() as patched:
        patched.setattr(store._sealer, "close", broken)
        with pytest.raises(KeyboardInterrupt):
            store.answer(said("two", "b"))
    assert store.answers() == [said("one", "a")]
    assert store.answer(said("two", "b"))


# Disks


def test_a_full_disk_is_said_and_nothing_is_lost(path: Path) -> None:
    """A process that may write files of 200 kB only, which ends with the command line's words."""
    filled(path)
    code = (
        "import resource, signal, sys\n"
        "from feedtune.feedback import Answer, FeedbackStore\n"
        "from feedtune.errors import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "store = FeedbackStore(sys.argv[1])\n"
        "[item] = store.items()\n"
        "for number in range(1000):\n"
        "    said = Answer(id=str(number), item=item.id, kind='comment', value='x' * 5000, rater='bob',\n"
        f"                  responses=(item.responses[0].id,), time='{TIME}')\n"
        "    try:\n"
        "        store.answer(said)\n"
        "    except UserError as error:\n"
        "        print(number, error)\n"
        "        break\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, timeout=120, check=True, capture_output=True, text=True)
    count, _, message = done.stdout.strip().partition(" ")
    assert message.startswith(f"feedback.path: {path} cannot be used: ")
    assert int(count) > 5
    store = FeedbackStore(path)
    assert len(store.answers(rater="bob")) == int(count)
    assert store.answers(rater="ann") == [said("one", "a")]


def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^feedback\.path: .*file/feedback\.sqlite cannot be used: "):
        FeedbackStore(tmp_path / "file" / "feedback.sqlite").items()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder cannot be used: unable to open database file"):
        FeedbackStore(tmp_path / "folder").items()


# What is no store, or no longer


def test_what_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("prompt,chosen\n" * 100)
    with pytest.raises(UserError) as caught:
        FeedbackStore(path).answers()
    assert str(caught.value) == (
        f"feedback.path: {path} is damaged (file is not a database). Move it away, with its -wal and -shm "
        "files if there are any, and go on with a copy or a new one"
    )
    assert path.read_text() == "prompt,chosen\n" * 100


def test_a_database_of_somebody_else_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE answers (id TEXT)")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"is a database, but not a feedback store; name another file$"):
        FeedbackStore(path).add([ITEM])
    assert path.read_bytes() == before


def test_a_store_of_a_later_feedtune_is_refused(path: Path) -> None:
    filled(path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(UserError, match=r"made by a later feedtune \(format 7, this one knows 1\); update"):
        FeedbackStore(path).answers()


@pytest.mark.parametrize("size", [50, 1000, 4096, 9000, -1])
def test_a_file_that_was_cut_off_is_refused(path: Path, size: int) -> None:
    store = filled(path)
    store.answer_all(remark(number) for number in range(50))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError) as caught:
        store.answers(), store.items(), store.raters(), store.accounts()
    assert str(caught.value).startswith(f"feedback.path: {path} ")
    assert "\n" not in str(caught.value)


CHANGES = {
    "the rater": "UPDATE answers SET rater = 'bob'",
    "the time": "UPDATE answers SET at = at + 1",
    "what it is about": "UPDATE answers SET item = 'other'",
    "the value": "UPDATE answers SET body = replace(body, '\"a\"', '\"b\"')",
    "a response": "UPDATE responses SET body = replace(body, '\"2\"', '\"4\"')",
    "the responses, exchanged": (
        f"UPDATE responses SET body = (SELECT body FROM responses WHERE id = '{A}') WHERE id = '{B}'"
    ),
    "a prompt": "UPDATE items SET body = replace(body, '1+1', '1+2')",
    "a body, emptied": "UPDATE items SET body = NULL",
    "a response, deleted": f"DELETE FROM responses WHERE id = '{A}'",
    "an event": "UPDATE events SET response = 'other'",
    "a role": "UPDATE accounts SET role = 'admin'",
    "the lock": "DELETE FROM lock",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_row_that_was_changed_is_seen(path: Path, change: str) -> None:
    from feedtune.feedback import Event

    store = filled(path)
    store.log([Event(id="click", response=A, kind="click", time=now())])
    store.add_account("rater")
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute(CHANGES[change]).rowcount > 0
    with pytest.raises(UserError, match=r"^feedback\.path: .* is damaged \("):
        store.answers(), store.items(), store.events(), store.accounts()


@settings(max_examples=20, deadline=None)
@given(place=st.integers(0, 2**20), bit=st.integers(0, 7))
@example(place=3999, bit=7)  # in the schema: SQLite's message is no UTF-8, which Python does not read
def test_whatever_bit_is_flipped_no_answer_changes(
    place: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It reads what was written, or less, or refuses the file; never something else."""
    path = tmp_path_factory.mktemp("flip") / "feedback.sqlite"
    filled(path)
    whole = bytearray(path.read_bytes())
    whole[place % len(whole)] ^= 1 << bit
    path.write_bytes(whole)
    found, items, refusal = list[Answer](), list[Item](), ""
    try:
        found, items = FeedbackStore(path).answers(), FeedbackStore(path).items()
    except UserError as error:
        refusal = str(error)
    assert found in ([], [said("one", "a")])
    assert items in ([], [ITEM])
    assert refusal.startswith(("feedback.path: ", "feedback.key: ") if refusal else "")
