"""Preferences: rows with two answers to one prompt, of which `chosen` is preferred to `rejected`.

The answers come as texts, as messages, or as lists of messages, and with the prompt beside them (`prompt`,
`messages`) or only in front of both (an implicit prompt, as many published data sets have it). `explicit`
gives all of these one form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from feedtune.contracts import Row
from feedtune.errors import UserError, nearest
from feedtune.text.conversation import Message, check_text, messages_of

ANSWERS = ("chosen", "rejected")
PROMPTS = ("prompt", "messages")


def is_pair(row: Row) -> bool:
    """Whether a row has two answers to choose between."""
    return all(row.get(name) is not None for name in ANSWERS)


def explicit(row: Row, where: str) -> Row:
    """A pair with its prompt in a column of its own and its answers after it; other rows as they are.

    A prompt or messages before texts stay as they are. Lists of messages give `messages`, the conversation
    before, and `chosen` and `rejected`, the messages after it. Two texts without a prompt share one: what is
    the same at their beginnings, up to the last blank in it.

    Raises:
        UserError: beginning with `where`; an answer is missing, or where it begins cannot be known.

    >>> explicit({"chosen": "Q: 1+1? A: 2", "rejected": "Q: 1+1? A: 3"}, "row 1")
    {'prompt': 'Q: 1+1? A:', 'chosen': ' 2', 'rejected': ' 3'}
    """
    if not is_pair(row):
        return row
    chosen, rejected = (row[name] for name in ANSWERS)
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise UserError(f"{where}: 'chosen' and 'rejected' must both be texts or both be messages")
    if isinstance(chosen, str):
        for name in ANSWERS:
            check_text(row[name], f"{where}: '{name}'")
        return row if _has_prompt(row) else {**_split_texts(chosen, rejected, where), **_rest(row)}
    return _split_messages(row, where)


def answered(row: Row, name: str, where: str) -> tuple[Row, Row]:
    """What a pair asks before one of its answers, and the two together, as ordinary rows.

    Args:
        row: any form of a pair.
        name: "chosen" or "rejected".
        where: names the row in errors, as in "row 3".

    Raises:
        UserError: the row is no pair, or its answer is none.
    """
    if not is_pair(row):
        missing = next(name for name in ANSWERS if row.get(name) is None)
        found = ", ".join(f"'{column}'" for column in row) or "none"
        raise UserError(f"{where}: no column '{missing}', found {found}.{nearest(missing, map(str, row))}")
    row = explicit(row, where)
    rest = _rest(row)
    answer = row[name]
    if isinstance(row.get("prompt"), str) and row.get("messages") is None:
        asked: Row = {**rest, "prompt": row["prompt"], "reference": None}
        return asked, {**asked, "reference": answer}
    before = messages_of(row, where)
    after = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else list(answer)
    start = next((n for n, said in enumerate(after) if said["role"] == "assistant"), None)
    if start is None:
        raise UserError(f"{where}: '{name}' has no assistant message after what is asked")
    asked = {**rest, "messages": [*before, *after[:start]], "reference": None}
    if asked["messages"][-1]["role"] == "assistant":
        raise UserError(f"{where}: what '{name}' answers ends in an assistant message itself")
    return asked, {**asked, "messages": [*before, *after]}


def _rest(row: Row) -> dict[str, Any]:
    """The columns that are neither asked nor answered."""
    return {column: value for column, value in row.items() if column not in (*ANSWERS, *PROMPTS)}


def _has_prompt(row: Row) -> bool:
    return any(row.get(name) is not None for name in PROMPTS)


def _split_texts(chosen: str, rejected: str, where: str) -> dict[str, str]:
    if chosen == rejected:
        raise UserError(f"{where}: 'chosen' and 'rejected' are the same, and there is no 'prompt'")
    common = chosen[: _common(chosen, rejected)]
    blanks = [at for at, letter in enumerate(common) if letter.isspace()]
    at = blanks[-1] if blanks else 0
    return {"prompt": chosen[:at], "chosen": chosen[at:], "rejected": rejected[at:]}


def _split_messages(row: Row, where: str) -> Row:
    """The conversation before, from its own column or from the beginning of both answers."""
    chosen, rejected = (_listed(row[name], f"{where}: '{name}'") for name in ANSWERS)
    if not _has_prompt(row):
        same = _common(chosen, rejected)
        if same in (len(chosen), len(rejected)):
            raise UserError(f"{where}: one of 'chosen' and 'rejected' is the beginning of the other")
        if same == 0:
            raise UserError(f"{where}: 'chosen' and 'rejected' begin differently, and there is no 'prompt'")
        before = chosen[:same]
    else:
        before = _before(row, where)
    answers = {
        name: said[len(before) :] if said[: len(before)] == before else said
        for name, said in zip(ANSWERS, (chosen, rejected), strict=True)
    }
    return {"messages": before, **answers, **_rest(row)}


def _before(row: Row, where: str) -> list[Message]:
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        return [{"role": "user", "content": check_text(prompt, f"{where}: 'prompt'")}]
    # Beside a prompt, `messages` often is the whole conversation with the chosen answer.
    return messages_of(row if prompt is None else {"prompt": prompt}, where)


def _listed(answer: Any, what: str) -> list[Message]:
    """An answer as a list of messages, each checked."""
    several = isinstance(answer, Sequence) and not isinstance(answer, str)
    if not (several or isinstance(answer, Mapping)):
        raise UserError(f"{what} must be text or messages, got {type(answer).__name__}")
    return messages_of({"messages": answer if several else [answer]}, what)


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many letters or messages two answers share at their beginnings."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
