"""A server that is killed loses no answer that it has confirmed, and counts none twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from feedback_sites import Visitor, body_of, make_items
from feedtune.feedback import FeedbackStore

SERVER = """
import sys, time
from feedtune.feedback import FeedbackStore
from feedtune.feedback.web.serving import serve_in_thread
with serve_in_thread(FeedbackStore(sys.argv[1])) as url:
    print(url, flush=True)
    time.sleep(600)
"""


@contextmanager
def server(path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


def test_what_was_confirmed_before_a_kill_is_there_once(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    store.add(make_items(20))
    token = store.add_account("rater")[1]
    confirmed = []
    with server(store.path) as (url, process), Visitor(url) as rater:
        rater.log_in(token)
        for _ in range(7):
            question = rater.asked()
            assert rater.answer(question, "a").json() == {"new": True}
            confirmed.append(question["answer"])
        last = rater.asked()
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(httpx.TransportError):
            rater.answer(last, "a")
    assert [one.id for one in store.answers()] == confirmed
    with server(store.path) as (url, _), Visitor(url) as rater:
        rater.log_in(token)
        resent = [rater.post("/api/answers", json=body_of(last, "a")).json()["new"] for _ in range(2)]
        assert resent == [True, False]  # the click that was lost on the way is sent again, as the page does
        assert rater.asked()["answered"] == 8
    assert [one.id for one in store.answers()] == [*confirmed, last["answer"]]
