"""Rows of what raters have said: which answers make which rows, what is held out, and who counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from feedtune.errors import UserError
from feedtune.feedback import Answer, FeedbackStore, Item, Kind, item_of, one_time_id, response_of
from feedtune.testing.tiny import tiny_codec
from feedtune_plugins.collectors.offline import Offline
from feedtune_plugins.collectors.pairs import Pairs
from feedtune_plugins.tasks.feedback import Feedback

TIMES = (f"2026-01-31T12:{number // 60:02}:{number % 60:02}Z" for number in range(3600))


@pytest.fixture
def store(tmp_path: Path) -> FeedbackStore:
    return FeedbackStore(tmp_path / "feedback.sqlite")


def asked(store: FeedbackStore, prompt: str, *texts: str, **more: Any) -> Item:
    item = item_of(prompt, [response_of(prompt, text, run=str(n)) for n, text in enumerate(texts)], **more)
    store.add([item])
    return item


def say(store: FeedbackStore, item: Item, kind: Kind, value: Any, about: Sequence[int], **more: Any) -> None:
    shown = tuple(item.responses[n].id for n in about)
    fields = {"rater": "ann", "id": one_time_id(), "time": next(TIMES), **more}
    assert store.answer(Answer(item=item.id, kind=kind, responses=shown, value=value, **fields))


def rows(store: FeedbackStore, **options: Any) -> list[Any]:
    return list(Feedback(path=str(store.path), **{"eval_fraction": 0, **options}).load("train"))


# Comparisons


def test_each_preference_makes_a_row_whichever_was_shown_first(store: FeedbackStore) -> None:
    item = asked(store, "1+1?", "2", "3", columns={"topic": "sums", "reference": "two", "rater": "x"})
    say(store, item, "comparison", "a", (0, 1))
    say(store, item, "comparison", "b", (1, 0), rater="bob")
    say(store, item, "comparison", "a", (1, 0), rater="cat")
    right = {"topic": "sums", "prompt": "1+1?", "chosen": "2", "rejected": "3"}
    wrong = {**right, "chosen": "3", "rejected": "2"}
    assert rows(store) == [{**right, "rater": "ann"}, {**right, "rater": "bob"}, {**wrong, "rater": "cat"}]


def test_what_prefers_nothing_is_counted_and_makes_no_row(store: FeedbackStore) -> None:
    items = [asked(store, f"{n}?", "yes", "no") for n in range(5)]
    for item, value in zip(items, ("tie", "both_bad", "skip", "skip", "b"), strict=True):
        say(store, item, "comparison", value, (0, 1))
    say(store, asked(store, "same?", "yes", "yes"), "comparison", "a", (0, 1))
    task = Feedback(path=str(store.path), eval_fraction=0)
    assert [row["prompt"] for row in task.load("train")] == ["4?"]
    assert dict(task.left_out) == {"tie": 1, "both_bad": 1, "skip": 2, "same text": 1}


def test_a_conversation_keeps_its_messages(store: FeedbackStore) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
    item = asked(store, "1+1?", "2", "3", messages=messages)
    say(store, item, "comparison", "a", (0, 1))
    assert rows(store) == [{"messages": messages, "chosen": "2", "rejected": "3", "rater": "ann"}]


# Ratings and edits


def rated(store: FeedbackStore) -> None:
    """Means: "good" (5 + 4) / 2 = 4.5, "fair" 3, "poor" 3, "bad" (1 + 2) / 2 = 1.5; another prompt's 5."""
    item = asked(store, "1+1?", "good", "fair", "poor", "bad")
    for rater, values in {"ann": (5, 3, 3, 1), "bob": (4, None, None, 2)}.items():
        for n, value in enumerate(values):
            if value is not None:
                say(store, item, "rating", value, (n,), rater=rater)
    say(store, asked(store, "2+2?", "4"), "rating", 5, (0,))


def test_mean_ratings_of_one_prompt_make_pairs_with_their_difference(store: FeedbackStore) -> None:
    rated(store)
    found = rows(store, kind="ratings")
    assert [(row["chosen"], row["rejected"], row["margin"]) for row in found] == [
        ("good", "fair", 1.5),
        ("good", "poor", 1.5),
        ("good", "bad", 3.0),
        ("fair", "bad", 1.5),
        ("poor", "bad", 1.5),
    ]
    assert {row["prompt"] for row in found} == {"1+1?"}
    assert all(row["raters"] == ["ann", "bob"] for row in found)


def test_mean_ratings_are_rewards_of_the_responses(store: FeedbackStore) -> None:
    rated(store)
    found = [(row["prompt"], row["reference"], row["reward"]) for row in rows(store, kind="rewards")]
    first = [
        ("1+1?", text, mean) for text, mean in (("good", 4.5), ("fair", 3.0), ("poor", 3.0), ("bad", 1.5))
    ]
    assert found == [*first, ("2+2?", "4", 5.0)]


def test_the_same_response_in_two_items_has_one_mean(store: FeedbackStore) -> None:
    first = asked(store, "1+1?", "2", "3")
    second = item_of("1+1?", [first.responses[0]])
    store.add([second])
    say(store, first, "rating", 5, (0,))
    say(store, second, "rating", 2, (0,))
    say(store, first, "rating", 3, (1,))
    assert [row["reward"] for row in rows(store, kind="rewards")] == [3.5, 3.0]


def test_edits_are_what_should_have_been_said(store: FeedbackStore) -> None:
    say(store, asked(store, "1+1?", "22"), "edit", "It is 2.", (0,))
    messages = [{"role": "user", "content": "Hi"}]
    say(store, asked(store, "Hi", "Go", messages=messages), "edit", "Hello!", (0,), rater="bob")
    assert rows(store, kind="edits") == [
        {"prompt": "1+1?", "reference": "It is 2.", "rater": "ann"},
        {"messages": messages, "reference": "Hello!", "rater": "bob"},
    ]


# Who counts, and what is held out


def many(store: FeedbackStore, prompts: int = 10, raters: Sequence[str] = ("ann", "bob", "cat")) -> None:
    for n in range(prompts):
        item = asked(store, f"{n}?", "yes", "no")
        for rater in raters:
            tags = ("easy",) if n < 4 else ("hard", "late")
            by = "judge" if rater == "cat" else "person"
            say(store, item, "comparison", "a", (0, 1), rater=rater, by=by, tags=tags)


def test_only_answers_that_are_wanted_count(store: FeedbackStore) -> None:
    many(store)
    assert len(rows(store)) == 30
    assert {row["rater"] for row in rows(store, raters=["bob", "cat"])} == {"bob", "cat"}
    assert {row["rater"] for row in rows(store, by=["judge"])} == {"cat"}
    assert {row["prompt"] for row in rows(store, tags=["easy"])} == {"0?", "1?", "2?", "3?"}
    assert len(rows(store, tags=["easy", "late"])) == 30
    assert len(rows(store, raters=["ann"], by=["person"], tags=["hard"])) == 6


def test_all_answers_to_a_prompt_are_in_one_split(store: FeedbackStore) -> None:
    many(store)
    twin = item_of("0?", [response_of("0?", text, run="other") for text in ("maybe", "no")])
    store.add([twin])  # another item with the same prompt
    say(store, twin, "comparison", "a", (0, 1))
    task = Feedback(path=str(store.path), eval_fraction=0.3)
    train, held_out = ({row["prompt"] for row in task.load(split)} for split in ("train", "eval"))
    assert (len(train), len(held_out)) == (7, 3)  # 0.3 of 10
    assert not train & held_out
    assert sum(map(len, (task.load("train"), task.load("eval")))) == 31
    again = Feedback(path=str(store.path), eval_fraction=0.3)
    assert again.load("eval") == task.load("eval")
    others = [Feedback(path=str(store.path), eval_fraction=0.3, seed=n).load("eval") for n in range(1, 4)]
    assert any(other != task.load("eval") for other in others)


def test_all_answers_of_a_rater_are_in_one_split(store: FeedbackStore) -> None:
    many(store)
    task = Feedback(path=str(store.path), held_out="rater", eval_fraction=0.4)
    train, held_out = ({row["rater"] for row in task.load(split)} for split in ("train", "eval"))
    assert (len(train), len(held_out)) == (2, 1)  # 0.4 of 3 is 1.2
    assert not train & held_out


def test_only_what_makes_rows_is_held_out(store: FeedbackStore) -> None:
    """Prompts with one rated response have no pair: holding those out would leave nothing to measure."""
    for n in range(8):
        item = asked(store, f"{n}?", "yes", "no")
        say(store, item, "rating", 5, (0,))
        if n in (2, 5):
            say(store, item, "rating", 1, (1,))
    for seed in range(4):
        task = Feedback(path=str(store.path), kind="ratings", seed=seed, eval_fraction=0.5)
        assert (len(task.load("train")), len(task.load("eval"))) == (1, 1)


def test_means_are_of_the_raters_of_one_split(store: FeedbackStore) -> None:
    """Or what is held out would be known from the means that were trained on."""
    item = asked(store, "1+1?", "2", "3")
    for rater, values in {"ann": (5, 1), "bob": (2, 4)}.items():
        for n, value in enumerate(values):
            say(store, item, "rating", value, (n,), rater=rater)
    task = Feedback(path=str(store.path), kind="ratings", held_out="rater", eval_fraction=0.5)
    found = {row["raters"][0]: row for split in ("train", "eval") for row in task.load(split)}
    assert (found["ann"]["chosen"], found["ann"]["margin"]) == ("2", 4.0)
    assert (found["bob"]["chosen"], found["bob"]["margin"]) == ("3", 2.0)


# What learns from it


def test_collectors_take_every_kind_of_rows(store: FeedbackStore) -> None:
    """Preferences with their margin as the score, logs with their reward, demonstrations; chats too."""
    rated(store)
    messages = [{"role": "user", "content": "Hi"}]
    for item in (asked(store, "1+1?", "good", "worse"), asked(store, "Hi", "Hello", "Go", messages=messages)):
        say(store, item, "comparison", "b", (1, 0))
        say(store, item, "edit", "Better.", (1,))
    codec = tiny_codec()
    preferred = Pairs(codec=codec).load(rows(store), None)
    assert len(preferred) == 2
    better, worse = preferred[0]
    assert (better.reward, worse.reward) == (1.0, 0.0)
    margins = [pair[0].reward for pair in Pairs(codec=codec).load(rows(store, kind="ratings"), None)]
    assert margins == [1.5, 1.5, 3.0, 1.5, 1.5]
    logged = Offline(codec=codec, rewards="column").load(rows(store, kind="rewards"), None)
    assert [one.reward for one in logged] == [4.5, 3.0, 3.0, 1.5, 5.0]
    assert len(Offline(codec=codec).load(rows(store, kind="edits"), None)) == 2


# What cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "comparison"}, r"task\.kind: expected one of comparisons, .* Did you mean 'comparisons'\?"),
        ({"held_out": "raters"}, r"task\.held_out: expected one of prompt, rater, got 'raters'\."),
        ({"by": ["persons"]}, r"task\.by: expected one of person, .* Did you mean 'person'\?"),
        ({"eval_fraction": 1.0}, r"task\.eval_fraction: expected 0 up to but not 1, got 1\.0"),
        ({"path": None}, r"task\.path: not given; name a feedback store"),
        ({"key": "no such variable"}, r"task\.key: expected the name of an environment variable"),
        ({"key": "NO_SUCH_VARIABLE"}, r"task\.key: the environment variable NO_SUCH_VARIABLE is not set"),
    ],
)
def test_arguments_that_cannot_be_are_named(
    store: FeedbackStore, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        Feedback(**{"path": str(store.path), **options})


def test_a_store_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^task\.path: there is no feedback store .*feedback\.sqlite"):
        Feedback(path=str(tmp_path)).load("train")
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_rows_says_what_it_has(store: FeedbackStore) -> None:
    item = asked(store, "1+1?", "2", "3")
    with pytest.raises(UserError, match=r"has no comparisons to train on; it has answers: none at all$"):
        rows(store)
    say(store, item, "rating", 3, (0,))
    with pytest.raises(UserError, match=r"has no comparisons .*; it has answers: 1 of the kind rating$"):
        rows(store)
    with pytest.raises(UserError, match="no two responses to one prompt whose mean ratings differ"):
        rows(store, kind="ratings")
    with pytest.raises(UserError, match=r"task\.raters: nobody is called 'anne'\. Did you mean 'ann'\?"):
        rows(store, kind="ratings", raters=["anne"])
    say(store, item, "comparison", "tie", (0, 1))
    with pytest.raises(UserError, match=r"has no comparisons to train on: 1 tie$"):
        rows(store)


def test_one_prompt_or_rater_cannot_be_split(store: FeedbackStore) -> None:
    say(store, asked(store, "1+1?", "2", "3"), "comparison", "a", (0, 1))
    for held_out, only in (("prompt", "to one prompt"), ("rater", "of one rater")):
        with pytest.raises(UserError, match=rf"^task\.held_out: there are answers {only} only"):
            rows(store, eval_fraction=0.1, held_out=held_out)


def test_an_encrypted_store_wants_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.fernet import Fernet

    monkeypatch.setenv("MY_KEY", Fernet.generate_key().decode())
    store = FeedbackStore(tmp_path / "feedback.sqlite", "MY_KEY")
    say(store, asked(store, "1+1?", "2", "3"), "comparison", "a", (0, 1))
    assert len(rows(store, key="MY_KEY")) == 1
    with pytest.raises(UserError, match=r"^task\.key: .* is encrypted; .* as in task\.key=FEEDBACK_KEY$"):
        rows(store)
