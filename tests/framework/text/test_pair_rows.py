"""Preferences in every form they are stored in: what is asked, and the two answers."""

from __future__ import annotations

from typing import Any

import pytest

from feedtune.errors import UserError
from feedtune.text.pairs import answered, explicit


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


ASKED = [user("Hi"), assistant("Yes?"), user("What is 1 + 1?")]
EXPLICIT = {"messages": ASKED, "chosen": [assistant("2")], "rejected": [assistant("3")]}

FORMS: dict[str, dict[str, Any]] = {
    "messages and lists": EXPLICIT,
    "a prompt of messages and lists": {**EXPLICIT, "prompt": ASKED, "messages": None},
    "messages and single messages": {**EXPLICIT, "chosen": assistant("2"), "rejected": assistant("3")},
    "the conversation in front of both": {
        "chosen": [*ASKED, assistant("2")],
        "rejected": [*ASKED, assistant("3")],
    },
    "the conversation in a column and in front of both": {
        "messages": ASKED,
        "chosen": [*ASKED, assistant("2")],
        "rejected": [*ASKED, assistant("3")],
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_chat_is_one(form: str) -> None:
    row = {name: value for name, value in FORMS[form].items() if value is not None}
    assert explicit(row, "row 1") == EXPLICIT
    assert explicit(explicit(row, "row 1"), "row 1") == EXPLICIT


def test_a_prompt_beside_messages_is_what_a_user_says() -> None:
    """As in data sets that keep the question as text and the answers as whole conversations."""
    row = {"prompt": "Hi", "chosen": [user("Hi"), assistant("a")], "rejected": [user("Hi"), assistant("b")]}
    wanted = {"messages": [user("Hi")], "chosen": [assistant("a")], "rejected": [assistant("b")]}
    assert explicit(row, "row 1") == wanted
    # and where a column repeats the conversation with the chosen answer
    assert explicit({**row, "messages": row["chosen"]}, "row 1") == wanted


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("Q: 1 + 1?\n\nA: 2", "Q: 1 + 1?\n\nA: 3", "Q: 1 + 1?\n\nA:"),
        ("in Paris", "in Parma", "in"),  # not "in Par": words are not cut
        ("yes", "no", ""),
    ],
)
def test_texts_share_their_beginning(chosen: str, rejected: str, prompt: str) -> None:
    found = explicit({"chosen": chosen, "rejected": rejected, "id": 7}, "row 1")
    assert (found["prompt"], found["id"]) == (prompt, 7)
    assert (found["prompt"] + found["chosen"], found["prompt"] + found["rejected"]) == (chosen, rejected)


def test_texts_beside_a_prompt_and_rows_that_are_no_pairs_stay_as_they_are() -> None:
    for row in ({"prompt": "a", "chosen": "b", "rejected": "b"}, {"prompt": "a"}, {"messages": ASKED}):
        assert explicit(row, "row 1") == row


def test_what_is_asked_and_answered() -> None:
    plain = {"prompt": "a", "chosen": "b", "rejected": "", "id": 1, "reference": "x"}
    asked, said = answered(plain, "rejected", "row 1")
    assert (asked["prompt"], asked["reference"], asked["id"]) == ("a", None, 1)
    assert (said["prompt"], said["reference"]) == ("a", "")
    asked, said = answered({"messages": ASKED, "chosen": "2", "rejected": "3"}, "chosen", "row 1")
    assert (asked["messages"], said["messages"]) == (ASKED, [*ASKED, assistant("2")])


def test_conversations_that_part_before_the_answer() -> None:
    """The users ask different things, so each answer has its own conversation before it."""
    row = {
        "chosen": [user("Hi"), assistant("Yes?"), user("How?"), assistant("So.")],
        "rejected": [user("Hi"), assistant("Yes?"), user("Why?"), assistant("No.")],
    }
    asked, said = answered(row, "rejected", "row 1")
    assert asked["messages"] == [user("Hi"), assistant("Yes?"), user("Why?")]
    assert said["messages"] == row["rejected"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "row 3: no column 'rejected', found 'prompt', 'chosen'."),
        (
            {"prompt": "a", "chosen": "b", "rejcted": "c"},
            "row 3: no column 'rejected', found 'prompt', 'chosen', 'rejcted'. Did you mean 'rejcted'?",
        ),
        (
            {"prompt": "a", "chosen": "b", "rejected": [assistant("c")]},
            "row 3: 'chosen' and 'rejected' must both be texts or both be messages",
        ),
        (
            {"prompt": "a", "chosen": 1, "rejected": 2},
            "row 3: 'chosen' must be text or messages, got int",
        ),
        (
            {"chosen": "b", "rejected": "b"},
            "row 3: 'chosen' and 'rejected' are the same, and there is no 'prompt'",
        ),
        (
            {"chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("b")]},
            "row 3: one of 'chosen' and 'rejected' is the beginning of the other",
        ),
        (
            {"chosen": [assistant("b")], "rejected": [assistant("c")]},
            "row 3: 'chosen' and 'rejected' begin differently, and there is no 'prompt'",
        ),
        (
            {"messages": ASKED, "chosen": [user("b")], "rejected": [assistant("c")]},
            "row 3: 'chosen' has no assistant message after what is asked",
        ),
        (
            {"messages": [user("a"), assistant("b")], "chosen": "c", "rejected": "d"},
            "row 3: what 'chosen' answers ends in an assistant message itself",
        ),
        (
            {"prompt": "a", "chosen": [{"role": "bot", "content": "b"}], "rejected": [assistant("c")]},
            "row 3: 'chosen': message 1: unknown role 'bot', expected one of system, developer, user, "
            "assistant, tool. Did you mean 'assistant'?",
        ),
    ],
)
def test_what_is_no_pair_is_refused_by_name(row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        answered(row, "chosen", "row 3")
    assert str(caught.value) == message
