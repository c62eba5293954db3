"""From a store to a reward model that speaks for raters whom it has not heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedtune.feedback import Answer, FeedbackStore, item_of, response_of
from feedtune.feedback.storage.encryption import new_key
from small_runs import SMALL, run


def raters_of_sums(store: FeedbackStore) -> None:
    """Three raters compare right and wrong sums, shown in either order; one of them errs now and then."""
    for number in range(24):
        prompt, right = f"{number % 6}+{number // 6}=", str(number % 6 + number // 6)
        item = item_of(prompt, [response_of(prompt, text) for text in (right, f"{right}!")])
        store.add([item])
        for place, rater in enumerate(("ann", "bob", "cat")):
            a, b = item.responses[:: 1 if (number + place) % 2 else -1]
            errs = rater == "cat" and number % 8 == 0
            store.answer(
                Answer(
                    id=f"{rater} {number}",
                    item=item.id,
                    kind="comparison",
                    responses=(a.id, b.id),
                    value="a" if (a.text == right) != errs else "b",
                    rater=rater,
                    time="2026-01-31T12:00:00Z",
                )
            )


def test_a_reward_model_learns_from_an_encrypted_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key()
    monkeypatch.setenv("RATERS_KEY", key)
    store = FeedbackStore(tmp_path / "feedback.sqlite", "RATERS_KEY")
    raters_of_sums(store)
    found = run(
        tmp_path / "run",
        [
            "algorithm=reward_model",
            *SMALL["lstm"],
            "tokenizer=char",
            "task=feedback",
            f"task.path={store.path}",
            "task.key=RATERS_KEY",
            "task.held_out=rater",
            "collector.pairs=8",
            "optimizer.lr=0.02",
            "trainer.max_epochs=4",
            "callbacks=quiet",
            "selfcheck=false",
            "evaluation.every=4",
            "evaluation.max_new_tokens=1",
        ],
    )
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert [file for file in files if key.encode() in file.read_bytes()] == []
    assert found["eval/preference_accuracy"] > 0.85  # of 24 comparisons by a rater who never errs, or 3 times
