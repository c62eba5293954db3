"""A run that goes on while W&B can be asked: a server on loopback that answers as W&B's own does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import wandb

from feedtune.checkpoints import newest
from feedtune.config.compose import compose_config
from feedtune.runs.training import train
from small_runs import overrides, write_rows

OWNER = {"id": "1", "name": "somebody"}
PROJECT = {"id": "2", "name": "feedtune", "entity": OWNER}


class Server(ThreadingHTTPServer):
    """Knows runs and their rows by what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.resumed: list[str] = []  # ids that were asked about, as `wandb.init` does with resume="allow"
        self.known: list[str] = []  # ids that a run was begun, or gone on, with
        self.rows: list[dict[str, Any]] = []  # of the history, in the order in which they came

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        if "RunResumeStatus" in query:
            self.resumed.append(given["name"])
            return {"model": {**PROJECT, "bucket": self.bucket(given["name"])}}
        if "UpsertBucket" in query:
            self.known.append(given["name"])
            bucket = {"id": "3", "name": given["name"], "displayName": "mine", "project": PROJECT}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if "CreateRunFiles" in query:  # logs and the like: nobody wants them
            return {"createRunFiles": {"runID": "3", "uploadHeaders": [], "files": []}}
        return {"viewer": {**OWNER, "entity": "somebody", "flags": "{}", "teams": {"edges": []}}}

    def bucket(self, name: str) -> dict[str, Any] | None:
        """A run as W&B remembers it: how many rows it has, and the last of them."""
        if name not in self.known:
            return None
        tail = json.dumps([json.dumps(row) for row in self.rows[-1:]])
        return {
            "id": "3",
            "name": name,
            "displayName": "mine",
            "summaryMetrics": "{}",
            "config": "{}",
            "historyLineCount": len(self.rows),
            "historyTail": tail,
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "tags": [],
            "notes": None,
            "wandbConfig": '{"t": {}}',  # by which the client knows that the run had begun
        }


class Handler(BaseHTTPRequestHandler):
    """GraphQL, and the stream of files of a run."""

    server: Server

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        if self.path.endswith("/file_stream"):
            history = sent.get("files", {}).get("wandb-history.jsonl", {"content": []})
            self.server.rows += map(json.loads, history["content"])
            self._say({})
        else:
            self._say({"data": self.server.answer(sent.get("query", ""), sent.get("variables") or {})})

    def _say(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """W&B of this process is this server."""
    wandb.teardown()  # it reads the environment once
    with Server() as made:
        thread = Thread(target=made.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{made.server_address[1]}"
        for name, value in {
            "BASE_URL": address,
            "API_KEY": "0" * 40,
            "MODE": "online",
            "SILENT": "true",
            "CONSOLE": "off",
            "DISABLE_GIT": "true",
            "DISABLE_CODE": "true",
            "X_DISABLE_STATS": "true",
            "X_DISABLE_META": "true",
            "_DISABLE_STATS": "true",
            "_DISABLE_META": "true",
            "CONFIG_DIR": str(tmp_path),
        }.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        yield made
        wandb.teardown()
        made.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_resumed_run_asks_for_its_id_and_goes_on_with_it(server: Server, tmp_path: Path) -> None:
    """Two epochs, then two more. The client says which rows the server has, and those are not sent anew.

    Tables go other ways, which this server does not know.
    """
    run = tmp_path / "run"
    chosen = overrides(write_rows(tmp_path), "lstm", "ppo", "logger=wandb", "buffer.passes=1")
    chosen += ["logger.samples_every=null"]
    train(compose_config(chosen), run)
    known = (run / "wandb_id.txt").read_text().strip()
    assert server.resumed == [known]
    train(compose_config([*chosen, "trainer.max_epochs=4"]), run, newest(run))
    assert server.resumed == [known, known]
    assert set(server.known) == {known}
    rows = [(row["_step"], row["epoch"]) for row in server.rows if "rollout/reward" in row]
    assert rows == [(1, 0), (3, 1), (5, 2), (7, 3)]  # each once, with the last of its epoch's two steps
