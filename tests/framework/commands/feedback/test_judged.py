"""`feedtune feedback label` and `revise`, from the command line to the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chat_judges import by_worth, chatting, completion, letters, parts, question
from feedtune.feedback import FeedbackStore
from judges import Judge

ROWS = [
    {"prompt": "Hi", "responses": ["Hello there, my friend!", "No"]},
    {"prompt": "Ho", "response": "Good day to you"},
    {"prompt": "Ha", "response": ":"},
]


def helpful(body: Any) -> Any:
    """Likes letters, finds everything too short, and adds to it."""
    if "criticise" in question(body)[0]:
        return completion("It is too short.")
    if "CRITIQUE" in parts(body):
        return completion(parts(body)["RESPONSE"] + " And more of it.")
    return by_worth(letters)(body)


@pytest.fixture
def items(tmp_path: Path) -> str:
    file = tmp_path / "items.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(file)


def chosen(judge: Judge) -> list[str]:
    return ["judge=openai", f"judge.url={judge.url}", "judge.model=tiny"]


def test_label_fills_the_store_and_says_how_far_to_rely_on_it(
    items: str, tmp_path: Path, feedtune: Callable[..., Any]
) -> None:
    with chatting(helpful) as judge:
        said = feedtune("feedback", "label", items, *chosen(judge))
        asked = len(judge.asked)
        again = feedtune("feedback", "label", items, *chosen(judge))
        assert len(judge.asked) == asked
    assert (said.code, said.err.strip()) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "3 answers, 0 without an answer, 0 known already"
    assert lines[1] == "unreadable 0, hollow 1, position bias 0, requests 3, tokens 306, cost 0"
    # Of the four canaries a judge of letters gets one right by score and by pairs.
    assert lines[2] == "comparisons: 25% right of 4 items whose order is known"
    assert lines[3] == "ratings: 25% right of 4 items whose order is known"
    assert again.out.splitlines()[0] == "0 answers, 0 without an answer, 3 known already"
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    assert [(one.rater, one.by, one.answers) for one in store.raters()] == [("tiny/helpful", "judge", 3)]
    assert (tmp_path / "replies.sqlite").exists()  # beside the store


def test_another_rubric_is_another_rater(items: str, tmp_path: Path, feedtune: Callable[..., Any]) -> None:
    with chatting(helpful) as judge:
        for rubric in ("helpful", "harmless"):
            assert feedtune("feedback", "label", items, *chosen(judge), f"rubric={rubric}").code == 0
    raters = [one.rater for one in FeedbackStore(tmp_path / "feedback.sqlite").raters()]
    assert raters == ["tiny/harmless", "tiny/helpful"]


def test_a_run_is_let_speak_and_labelled(
    lstm_run: Path, tmp_path: Path, feedtune: Callable[..., Any]
) -> None:
    path = tmp_path / "store.sqlite"
    with chatting(helpful) as judge:
        options = [
            "feedback.prompts=3",
            f"feedback.path={path}",
            f"judge.cache={tmp_path / 'replies.sqlite'}",
        ]
        said = feedtune("feedback", "label", str(lstm_run), *chosen(judge), *options)
    assert said.code == 0, said.err
    assert len(FeedbackStore(path).items()) == 3


def test_revise_makes_edits_and_pairs(items: str, tmp_path: Path, feedtune: Callable[..., Any]) -> None:
    with chatting(helpful) as judge:
        said = feedtune("feedback", "revise", items, *chosen(judge), "constitution.rounds=2")
    assert said.code == 0, said.err
    assert said.out.splitlines()[0] == "4 revisions, 0 without an answer, 0 known already"
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    assert {str(one.value) for one in store.answers(["edit"])} == {
        f"{text} And more of it. And more of it."
        for text in ("Hello there, my friend!", "No", "Good day to you", ":")
    }
    assert len(store.answers(["comparison"])) == 4


@pytest.mark.parametrize("command", ["label", "revise"])
def test_who_judges_has_to_be_said(command: str, items: str, feedtune: Callable[..., Any]) -> None:
    said = feedtune("feedback", command, items)
    assert (said.code, said.err.strip()) == (
        2,
        "feedtune: judge: not given; choose who judges: judge=local, judge=openai, judge=simulated",
    )


def test_a_wrong_setting_is_named(items: str, feedtune: Callable[..., Any]) -> None:
    said = feedtune("feedback", "label", items, "judge=openai", "judge.url=http://127.0.0.1:9/v1")
    assert (said.code, said.err.strip()) == (
        2,
        "feedtune: judge.model: not given; add judge.model=... to the command",
    )
    with chatting(helpful) as judge:
        said = feedtune("feedback", "label", items, *chosen(judge), "label.kind=ratings")
    assert said.code == 2
    assert "label.kind: expected one of comparison, rating, null, got 'ratings'" in said.err
