"""`feedtune feedback serve`: from runs and files to a page, and what cannot be served is refused in words."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import uvicorn
from omegaconf import OmegaConf

from feedback_sites import Visitor
from feedtune.cli import main
from feedtune.config.compose import compose_config
from feedtune.feedback import FeedbackStore
from feedtune.feedback.web.addresses import listening
from small_runs import overrides, run, write_rows


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tiny runs of the same task."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_rows(folder)
    for name, seed in (("one", 0), ("two", 1)):
        chosen = overrides(data, "ngram", "sft", f"seed={seed}", "evaluation.max_new_tokens=3")
        run(folder / name, chosen)
        (folder / name / ".hydra").mkdir()  # which the command line writes
        OmegaConf.save(compose_config(chosen), folder / name / ".hydra" / "config.yaml")
    return [folder / "one", folder / "two"]


@contextmanager
def served(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Iterator[None]:
    """The command in this process, stopped when the block ends: in a thread, since it serves until Ctrl-C."""
    servers: list[uvicorn.Server] = []
    began, codes = threading.Event(), []

    class Noted(uvicorn.Server):
        async def startup(self, sockets: object = None) -> None:
            await super().startup(sockets)  # type: ignore[arg-type]
            servers.append(self)
            began.set()

    def call() -> None:
        codes.append(main(["feedback", "serve", *arguments]))
        began.set()

    monkeypatch.setattr(uvicorn, "Server", Noted)
    thread = threading.Thread(target=call)
    thread.start()
    try:
        assert began.wait(120)
        assert codes == []
        yield
    finally:
        for server in servers:
            server.should_exit = True
        thread.join(60)
    assert codes == [0]


def test_runs_are_asked_the_same_and_compared(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [*map(str, runs), "feedback.port=0", "feedback.prompts=5", "feedback.responses=2"]
    with served(monkeypatch, *places):
        said = capsys.readouterr().out
        found = re.search(r"(http://127\.0\.0\.1:\d+)/login#(\S+)", said)
        assert found is not None, said
        with Visitor(found[1]) as admin:
            question = admin.log_in(found[2]).asked()
            assert admin.get("/results").status_code == 200
    store = FeedbackStore(runs[0] / "feedback.sqlite")
    items = store.items()
    assert len(items) == 5
    assert question["item"]["id"] in {item.id for item in items}
    for item in items:
        assert {one.run for one in item.responses} == {"one", "two"}
        assert all(len(one.checkpoint or "") == 64 for one in item.responses)
        assert item.columns["reference"] == str(sum(map(int, item.prompt[:-1].split("+"))))
    with served(monkeypatch, *places):
        again = capsys.readouterr()
    assert "0 new items; 5 in" in again.out
    assert "/login#" not in again.out  # an admin has a token already; it is shown once
    assert "letting" not in again.err  # nothing is sampled twice
    assert FeedbackStore(store.path).items() == items


def test_a_file_is_asked_about_and_then_its_store_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"prompt": "Hi", "responses": ["Ho", "Ha"]}) + "\n")
    with served(monkeypatch, str(path), "feedback.port=0"):
        assert f"1 new items; 1 in {tmp_path}/feedback.sqlite" in capsys.readouterr().out
    with served(monkeypatch, "feedback.port=0", f"feedback.path={tmp_path}/feedback.sqlite"):
        assert "0 new items; 1 in" in capsys.readouterr().out


def test_what_others_can_reach_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"prompt": "Hi", "response": "Ho"}) + "\n")
    with served(monkeypatch, str(path), "feedback.port=0", "feedback.host=0.0.0.0"):
        assert "others can reach the page, over plain HTTP" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["feedback.port=70000"], "feedback.port: expected 0 to 65535, got 70000"),
        (["feedback.port=page"], "feedback.port: "),
        (["feedback.host=192.0.2.1"], "feedback.host: cannot listen on 192.0.2.1, port 8765: Cannot assign"),
        (["feedback.host=no host"], "feedback.host: cannot listen on no host: "),
        (["feedback.prompts=0"], "feedback.prompts: expected at least 1, got 0"),
        (["feedback.overlap=2"], "feedback.overlap: expected a number in [0, 1], got 2"),
        (["feedback.split=test"], "feedback.split: expected one of train, eval, got 'test'."),
        (["feedback.choose=disagreement"], "feedback.choose: disagreement is between a reward's parts"),
        (["reward=length"], "reward: only feedback.choose=disagreement has a use for it here"),
        (["--port"], "--port: there is no such flag"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"prompt": "Hi", "response": "Ho"}) + "\n")
    assert main(["feedback", "serve", str(path), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_places_that_are_none_are_refused(
    tmp_path: Path, runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> str:
        assert main(["feedback", "serve", *arguments]) == 2
        return capsys.readouterr().err

    assert "nowhere: there is no such run folder or file of items" in said(str(tmp_path / "nowhere"))
    assert "feedback.path: not given" in said()
    empty = f"feedback.path={tmp_path}/new.sqlite"
    assert "there is no feedback store" in said(empty)
    assert not (tmp_path / "new.sqlite").exists()
    FeedbackStore(tmp_path / "new.sqlite").add([])
    assert "nothing in it to ask about" in said(empty)
    assert "need different names, got one, one" in said(str(runs[0]), str(runs[0]), empty)


def test_a_port_that_is_taken_adds_no_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"prompt": "Hi", "responses": ["Ho", "Ha"]}) + "\n")
    with closing(listening("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["feedback", "serve", str(path), f"feedback.port={port}"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"feedtune: feedback.port: cannot listen on 127.0.0.1, port {port}: ")
    assert message.endswith("; feedback.port=0 takes a free one\n")
    assert not (tmp_path / "feedback.sqlite").exists()


def test_disagreement_of_an_ensemble_chooses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Members: sentiment, to which all is neutral here, and wanted words, on which only one pair differs."""
    path = tmp_path / "items.jsonl"
    rows = [{"prompt": f"same {n}", "responses": ["ab", "cd"]} for n in range(6)]
    rows.append({"prompt": "apart", "responses": ["yes", "no"]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ensemble = ["reward=sum", "+reward@reward.sources.wanted=keyword", "reward.sources.wanted.words=[yes]"]
    ensemble += ["~reward.sources.length", "~reward.weights.length"]
    with served(monkeypatch, str(path), "feedback.port=0", "feedback.choose=disagreement", *ensemble):
        found = re.search(r"(http://127\.0\.0\.1:\d+)/login#(\S+)", capsys.readouterr().out)
        assert found is not None
        with Visitor(found[1]) as admin:
            assert admin.log_in(found[2]).asked()["item"]["prompt"] == "apart"
