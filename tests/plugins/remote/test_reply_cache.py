"""Replies that are kept: once and for all, by several processes, and never from a damaged file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedtune.errors import UserError
from feedtune_plugins.remote.reply_cache import ReplyCache, content_hash


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replies.sqlite"


def test_what_was_put_is_there_for_whoever_opens_the_file(path: Path) -> None:
    kept = {"a": 0.1, "b": None, "c": {"score": [1, "\ud800"]}}
    assert ReplyCache(path).put(kept) == kept
    assert ReplyCache(path).get(["c", "a", "nobody", "b", "a"]) == kept
    assert ReplyCache(path).get([]) == {}


def test_a_file_is_made_when_something_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "replies.sqlite"
    cache = ReplyCache(path)
    assert not path.parent.exists()
    assert cache.get(["a"]) == {}
    assert path.is_file()


def test_the_first_reply_stands(path: Path) -> None:
    first, second = ReplyCache(path), ReplyCache(path)
    first.put({"a": 1.0})
    assert second.put({"a": 2.0, "b": 3.0}) == {"a": 1.0, "b": 3.0}
    assert first.get(["a", "b"]) == {"a": 1.0, "b": 3.0}


def test_more_keys_than_one_query_takes(path: Path) -> None:
    many = {str(number): number for number in range(1201)}
    cache = ReplyCache(path)
    assert cache.put(many) == many
    assert cache.get(list(many)) == many


def test_nothing_is_left_but_the_file(path: Path) -> None:
    ReplyCache(path).put({"a": 1})
    assert list(path.parent.iterdir()) == [path]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(one=PLAIN, other=PLAIN)
def test_keys_are_the_same_only_for_the_same_content(one: Any, other: Any) -> None:
    same = repr(_ordered(one)) == repr(_ordered(other))
    assert (content_hash("judge", one) == content_hash("judge", other)) == same
    assert content_hash("judge", one) != content_hash("jury", one)


def _ordered(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, _ordered(value[key])) for key in sorted(value)]
    return ["list", *map(_ordered, value)] if isinstance(value, list) else value


def test_keys_know_what_the_parts_were() -> None:
    assert content_hash("ab", "c") != content_hash("a", "bc")
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert len(content_hash("\ud800")) == 64  # half of a pair of surrogates has a key like any text


# Several at once

WRITER = """
import sys
from feedtune_plugins.remote.reply_cache import ReplyCache
cache = ReplyCache(sys.argv[1])
for number in range(40):
    found = cache.put({str(number): sys.argv[2]})
    assert found == cache.get([str(number)])
"""


def test_processes_share_a_file(path: Path) -> None:
    """Three begin at once, where there is no file yet; each question ends with one reply for all of them."""
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "abc"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    found = ReplyCache(path).get([str(number) for number in range(40)])
    assert len(found) == 40
    assert set(found.values()) <= {"a", "b", "c"}


def test_threads_share_a_cache(path: Path) -> None:
    cache, failed = ReplyCache(path), list[BaseException]()

    def work(name: str) -> None:
        try:
            for number in range(20):
                found = cache.put({str(number): name})
                assert cache.get([str(number)]) == found
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert failed == []


def test_what_was_put_survives_sigkill(path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from feedtune_plugins.remote.reply_cache import ReplyCache\n"
        "ReplyCache(sys.argv[1]).put({'a': 1})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=False)
    assert done.returncode == -9
    assert ReplyCache(path).get(["a"]) == {"a": 1}


def test_a_batch_is_kept_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ReplyCache(path)
    cache.put({"a": 1})

    def killed(*args: Any) -> Any:
        raise KeyboardInterrupt  # between the rows and the commit

    with monkeypatch.context() as patched:
        patched.setattr(cache, "_read", killed)
        with pytest.raises(KeyboardInterrupt):
            cache.put({"b": 2, "c": 3})
    assert cache.get(["a", "b", "c"]) == {"a": 1}


# What is no cache, or no longer


def fresh(path: Path) -> bytes:
    ReplyCache(path).put({str(number): 0.5 for number in range(500)})
    return path.read_bytes()


@pytest.mark.parametrize("size", [50, 1000, 4096, 5000, -1])
def test_a_file_that_was_cut_off_is_refused(path: Path, size: int) -> None:
    whole = fresh(path)
    path.write_bytes(whole[:size])
    with pytest.raises(UserError) as caught:
        ReplyCache(path).get([str(number) for number in range(500)])
    assert str(caught.value).startswith(f"reward.cache: {path} ")
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_reply_is_seen(path: Path) -> None:
    ReplyCache(path).put({"question": 0.512345})
    whole = path.read_bytes()
    assert whole.count(b"0.512345") == 1
    path.write_bytes(whole.replace(b"0.512345", b"0.512344"))
    with pytest.raises(UserError) as caught:
        ReplyCache(path).get(["question"])
    assert str(caught.value) == (
        f"reward.cache: {path} is damaged (a reply in it is not as it was written). Move it away, with its "
        "-wal and -shm files if there are any; its questions will be asked again"
    )


@settings(max_examples=30, deadline=None)
@given(place=st.integers(0, 2**20), bit=st.integers(0, 7))
def test_whatever_bit_is_flipped_no_reply_changes(
    place: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It reads what was written, finds nothing, or refuses the file; never another number."""
    path = tmp_path_factory.mktemp("flip") / "replies.sqlite"
    ReplyCache(path).put({"a": 0.25, "b": 0.75})
    whole = bytearray(path.read_bytes())
    whole[place % len(whole)] ^= 1 << bit
    path.write_bytes(whole)
    found: dict[str, float] = {}
    refusal = ""
    try:
        found = ReplyCache(path).get(["a", "b"])
    except UserError as error:
        refusal = str(error)
    assert found.items() <= {"a": 0.25, "b": 0.75}.items()
    assert refusal.startswith(f"reward.cache: {path} " if refusal else "")


def test_what_is_no_database_is_refused(path: Path) -> None:
    path.write_text("prompt,response\n" * 100)
    with pytest.raises(UserError, match=r"is damaged \(file is not a database\)\. Move it away"):
        ReplyCache(path, name="reward.sources.judge.cache").get(["a"])
    assert path.read_text() == "prompt,response\n" * 100


def test_a_database_of_somebody_else_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE customers (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"is a database, but not one of replies; name another file"):
        ReplyCache(path).put({"a": 1})
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^reward\.cache: .*replies\.sqlite cannot be used: "):
        ReplyCache(tmp_path / "file" / "replies.sqlite").get(["a"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder cannot be used: unable to open database file"):
        ReplyCache(tmp_path / "folder").get(["a"])


def test_a_file_that_another_process_keeps_locked_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedtune.database.PATIENCE", 0.05)
    ReplyCache(path).put({"a": 1})
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        assert ReplyCache(path).get(["a"]) == {"a": 1}  # readers need not wait
        with pytest.raises(UserError, match=r"cannot be used: database is locked"):
            ReplyCache(path).put({"b": 1})
    finally:
        other.close()
