"""`feedtune feedback simulate`: raters log in at a real server and say what a hidden reward tells them."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from feedtune.cli import main
from feedtune.errors import UserError
from feedtune.feedback import FeedbackStore
from feedtune.feedback.raters.client import logged_in
from feedtune.feedback.web.serving import serve_in_thread
from small_runs import overrides, run, write_rows

PROMPTS = 8
SURE = ["reward=sentiment", "simulate.temperature=0"]


@pytest.fixture
def items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeedbackStore:
    """items.jsonl in the working directory, and the store that will be beside it."""
    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": f"{n}?", "responses": ["I love it", "I hate it"], "reference": "I hate it"}
        for n in range(PROMPTS)
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FeedbackStore(tmp_path / "feedback.sqlite")


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["feedback", "simulate", *words]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


def preferred(store: FeedbackStore) -> Counter[str]:
    """How often each text was."""
    texts = {one.id: one.text for item in store.items() for one in item.responses}
    return Counter(texts[one.responses[one.value != "a"]] for one in store.answers(["comparison"]))


def test_raters_prefer_what_the_hidden_reward_scores_higher(
    items: FeedbackStore, capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(capsys, "items.jsonl", *SURE, "simulate.answers=12", "simulate.raters=2")
    assert "12 comparisons by simulated raters, of 8 items" in out
    assert preferred(items) == {"I love it": 12}
    assert [(one.rater, one.by, one.answers) for one in items.raters()] == [
        ("simulated-1", "simulated", 6),
        ("simulated-2", "simulated", 6),
    ]
    assert {one.value for one in items.answers()} == {"a", "b"}  # shown in either order
    assert "they agree in 100 %" in out  # on 4 at least, of 12 answers to 8 questions
    assert items.accounts() == []


def test_it_goes_on_where_it_ended_and_says_when_nothing_is_left(
    items: FeedbackStore, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["items.jsonl", "reward=sentiment", "simulate.raters=1"]
    said(capsys, *typed, "simulate.answers=3")
    first = items.answers()
    said(capsys, *typed, "simulate.answers=3")
    assert items.answers() == first
    out = said(capsys, *typed, "simulate.answers=20")
    assert items.answers()[:3] == first
    assert len({one.item for one in items.answers()}) == PROMPTS
    assert "no more, though simulate.answers=20: nothing is left to ask" in out


def test_two_simulations_of_one_seed_are_the_same(
    tmp_path: Path, items: FeedbackStore, capsys: pytest.CaptureFixture[str]
) -> None:
    def answers(name: str, *more: str) -> list[tuple[str, object, tuple[str, ...], str]]:
        path = tmp_path / name
        habits = ["simulate.temperature=2", "simulate.laziness=0.2", "simulate.disagreement=0.5"]
        said(capsys, "items.jsonl", "reward=sentiment", f"feedback.path={path}", *habits, *more)
        return [(one.item, one.value, one.responses, one.rater) for one in FeedbackStore(path).answers()]

    one = answers("one.sqlite", "simulate.answers=16")
    assert answers("again.sqlite", "simulate.answers=16") == one
    assert answers("other.sqlite", "simulate.answers=16", "seed=1") != one


def test_ratings_lie_between_worst_and_best(items: FeedbackStore, capsys: pytest.CaptureFixture[str]) -> None:
    """VADER's compound of "I love it" is 0.6369, of "I hate it" -0.5719: 4.27 and 1.86 of 1 to 5."""
    said(capsys, "items.jsonl", *SURE, "simulate.kind=rating", "simulate.answers=99", "simulate.raters=1")
    assert Counter(one.value for one in items.answers(["rating"])) == {4: PROMPTS, 2: PROMPTS}


def test_a_hidden_reward_may_go_by_the_solution_that_no_rater_is_told(
    items: FeedbackStore, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "items.jsonl", "reward=chrf", "simulate.temperature=0", "simulate.answers=8")
    assert preferred(items) == {"I hate it": 8}


def test_raters_answer_a_run_that_is_asking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run waits in a thread; its store is named, and its questions come one rollout after the other."""
    folder = tmp_path / "run"
    typed = overrides(write_rows(tmp_path), "gru", "ppo", "reward=human", "reward.port=null")
    typed += ["reward.poll=0.01", "trainer.max_epochs=2", "evaluation.rows=2"]
    learner = threading.Thread(target=run, args=(folder, typed), daemon=True)
    learner.start()
    while not (folder / "feedback.sqlite").exists():  # Hydra composes for one thread at a time
        time.sleep(0.05)
    rating = ["simulate.kind=rating", "simulate.answers=1000", "simulate.wait=5"]
    said(capsys, f"feedback.path={folder}/feedback.sqlite", "reward=length", *rating)
    learner.join(timeout=20)
    assert (folder / "export" / "feedtune.json").is_file()
    assert len(FeedbackStore(folder / "feedback.sqlite").answers()) > 8


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (
            ["items.jsonl"],
            "reward: simulated raters go by a hidden reward; choose one, such as reward=sentiment",
        ),
        (["items.jsonl", *SURE, "simulate.answers=0"], "simulate.answers: expected at least 1, got 0"),
        (["items.jsonl", *SURE, "simulate.raters=0"], "simulate.raters: expected at least 1, got 0"),
        (
            ["items.jsonl", *SURE, "simulate.laziness=2"],
            "simulate.laziness: expected a number in [0, 1], got 2",
        ),
        (
            ["items.jsonl", *SURE, "simulate.lazines=1"],
            "simulate.lazines: there is no such key in 'simulate'",
        ),
        (["item.jsonl", *SURE], "item.jsonl"),
        (["--frob"], "--frob: there is no such flag; see feedtune feedback simulate --help"),
    ],
)
def test_what_cannot_be_simulated_is_named(
    typed: list[str], words: str, items: FeedbackStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in said(capsys, *typed, code=2)


def test_a_client_says_what_the_server_refuses(items: FeedbackStore) -> None:
    with (
        serve_in_thread(items) as url,
        pytest.raises(UserError, match="nobody has this token"),
        logged_in(url, "guessed"),
    ):
        pass
    with pytest.raises(UserError, match="the feedback server does not answer"), logged_in(url, "guessed"):
        pass
