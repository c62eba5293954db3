"""A judge on loopback that answers as a test tells it to, also as no judge should."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import patch

Samples = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Reply:
    """An answer, or what comes instead of one."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds before it
    drip: float = 0.0  # seconds after each of its bytes
    promised: int | None = None  # Content-Length; more than there is: the connection closes half-way


Answer = Callable[[Any], Reply]
"""Of what was asked: samples, or whatever the server reads of a request."""


def saying(value: Any, status: int = 200, **more: Any) -> Reply:
    """An answer in JSON."""
    return Reply(status, json.dumps(value).encode(), **more)


def lengths(samples: Samples) -> Reply:
    """What a well-behaved judge says: a seventh a letter."""
    return saying({"scores": [len(sample["response"]) / 7 for sample in samples]})


class Judge:
    """Where it listens, what it was asked, and how it answers: each of `answers` once, the last for ever.

    `read` says what of a request's body is noted and answered: a judge of samples is asked about `samples`.
    """

    def __init__(self, answers: Sequence[Answer | Reply], read: Callable[[Any], Any] | None = None) -> None:
        self.answers = list(answers)
        self.read = read or (lambda body: body["samples"])
        self.asked: list[Any] = []  # what was read of each request
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.closing = threading.Event()
        self._lock = threading.Lock()
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                reply = judge.begin(judge.read(json.loads(body)), dict(self.headers))
                try:
                    judge.closing.wait(reply.delay)
                    self.answer(reply)
                finally:
                    judge.end()

            def answer(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                size = len(reply.body) if reply.promised is None else reply.promised
                self.send_header("Content-Length", str(size))
                self.end_headers()
                pieces = [bytes([byte]) for byte in reply.body] if reply.drip else [reply.body]
                for piece in pieces:
                    self.wfile.write(piece)
                    judge.closing.wait(reply.drip)
                self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                if not isinstance(
                    sys.exception(), ConnectionError
                ):  # who asked has gone: that is a test's point
                    super().handle_error(request, client_address)

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/score"

    def begin(self, asked: Any, headers: dict[str, str]) -> Reply:
        """Note a request; how it is to be answered."""
        with self._lock:
            self.asked.append(asked)
            self.headers.append(headers)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer if isinstance(answer, Reply) else answer(asked)

    def end(self) -> None:
        """The request has been answered."""
        with self._lock:
            self.at_once -= 1


@contextmanager
def judging(*answers: Answer | Reply, read: Callable[[Any], Any] | None = None) -> Iterator[Judge]:
    """A judge that listens while the block lasts."""
    judge = Judge(answers, read)
    thread = threading.Thread(target=judge.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    directly = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}  # whatever the machine itself is set to
    try:
        with patch.dict(os.environ, directly):
            yield judge
    finally:
        judge.closing.set()
        judge.server.shutdown()
        judge.server.server_close()
        thread.join(timeout=5)
