"""Rows of JSON lines that ask or answer something, in the columns that data sets commonly have for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from feedtune.errors import UserError
from feedtune.feedback.exchange.exporting import VALUES
from feedtune.feedback.records import Kind

CHOSEN, SHOWN = ("chosen", "rejected"), ("response_a", "response_b")
ONE = ("completion", "response")
PROMPTS = ("prompt", "prompt_text", "messages")
RUNS = ("run", "run_a", "run_b", "chosen_run", "rejected_run")

USED = (*PROMPTS, *CHOSEN, *SHOWN, *ONE, *RUNS, *VALUES.values(), "choice", "responses")
"""Columns that are about the question and the answer; all others are the item's own."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a row asks, and what it answers, if it does."""

    prompt: str
    messages: tuple[Mapping[str, str], ...]
    texts: tuple[str, ...]  # of the responses; of a comparison, first a and then b
    runs: tuple[str | None, ...]  # that said them
    kind: Kind | None  # None: the row asks and does not answer
    value: Any = None  # of the answer


class _Shown(NamedTuple):
    """The columns of responses and of the runs that said them."""

    texts: tuple[str, ...]
    runs: tuple[str, ...]


def kind_of(row: Mapping[str, Any]) -> Kind | None:
    """Which kind of answer a row is by its columns; None: it only asks.

    >>> kind_of({"prompt": "1+1?", "chosen": "2", "rejected": "3"}), kind_of({"prompt": "1+1?"})
    ('comparison', None)
    """
    if _all(row, CHOSEN) or _all(row, (*SHOWN, "choice")):
        return "comparison"
    kinds: tuple[Kind, ...] = ("rating", "edit", "comment")
    answered = any(row.get(name) is not None for name in ONE)
    return next((kind for kind in kinds if answered and row.get(VALUES[kind]) is not None), None)


def value_of(row: Mapping[str, Any]) -> Any:
    """What the answer of a row says; where others have chosen, the chosen response counts as shown first."""
    kind = kind_of(row)
    if kind == "comparison":
        return row.get("choice") or "a"
    return None if kind is None else row[VALUES[kind]]


def read_question(row: Mapping[str, Any], where: str) -> Question:
    """What a row asks and answers.

    The prompt is a text or a list of messages (`prompt`, `messages`), or what `chosen` and `rejected` have
    in common at their beginnings. The responses are `chosen` and `rejected`, `response_a` and `response_b`,
    `completion`, `response`, or a list `responses`; each is a text or an assistant's message.

    Raises:
        UserError: beginning with `where`: there is no prompt, no response, or one that is no text.

    >>> read_question({"prompt": "1+1?", "responses": ["2", "3"]}, "row 1").texts
    ('2', '3')
    """
    from feedtune.text.conversation import messages_of, readable
    from feedtune.text.pairs import explicit

    kind, row = kind_of(row), dict(explicit(row, where))
    if isinstance(row.get("prompt"), str):
        prompt, messages = row["prompt"], []
    elif row.get("messages") is not None or row.get("prompt") is not None:
        messages = messages_of(row, where)
        prompt = str(row.get("prompt_text") or readable(messages))
    else:
        found = ", ".join(f"'{name}'" for name in row) or "none"
        raise UserError(f"{where}: expected a column 'prompt' or 'messages', found {found}")
    texts, runs = _responses(row, where)
    return Question(
        prompt=prompt,
        messages=tuple(messages),
        texts=tuple(_text(one, where) for one in texts),
        runs=tuple(one if isinstance(one, str) else None for one in runs),
        kind=kind,
        value="a" if kind == "comparison" and _all(row, CHOSEN) else value_of(row),
    )


def _responses(row: Mapping[str, Any], where: str) -> tuple[Sequence[Any], Sequence[Any]]:
    """The responses in a row and the runs that said them."""
    pairs = (_Shown(CHOSEN, ("chosen_run", "rejected_run")), _Shown(SHOWN, ("run_a", "run_b")))
    ones = (_Shown((name,), ("run",)) for name in ONE)
    for columns in (*pairs, *ones):
        if _all(row, columns.texts):
            return [row[name] for name in columns.texts], [row.get(name) for name in columns.runs]
    several = row.get("responses")
    if not isinstance(several, list) or not several:
        raise UserError(
            f"{where}: no response: expected chosen and rejected, response_a and response_b, completion, "
            "response, or a list named responses"
        )
    runs = [one.get("run") if isinstance(one, Mapping) else None for one in several]
    return [one.get("text", one) if isinstance(one, Mapping) else one for one in several], runs


def _text(answer: Any, where: str) -> str:
    """A response: a text, a message, or a list with one message in it."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if isinstance(answer, Mapping):
        answer = answer.get("content")
    if not isinstance(answer, str):
        what = f"{len(answer)} messages" if isinstance(answer, list) else type(answer).__name__
        raise UserError(f"{where}: a response must be text or one message, got {what}")
    return answer


def _all(row: Mapping[str, Any], columns: Sequence[str]) -> bool:
    return all(row.get(name) is not None for name in columns)
