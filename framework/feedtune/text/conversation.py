"""The forms that a row can have, and the one way in which each is checked.

A row is one of

- chat: `{"messages": [{"role": ..., "content": ...}, ...]}`, or a `prompt` that is such a list;
- plain: `{"prompt": str}` with a `reference` beside it where one is known;
- text: `{"text": str}`, something to read and to imitate from its first token to its last.

A chat or plain row may have the columns `chosen` and `rejected`, two answers of which one is preferred:
texts, messages, or lists of messages. Where those two begin with the conversation itself and there is no
other column for it, `feedtune.text.pairs.explicit` finds it.

Every other column travels along untouched. A column that is None counts as absent, since that is how
tables store what a row lacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from feedtune.contracts import Row
from feedtune.errors import UserError, nearest

Form = Literal["messages", "prompt", "text"]
Message = dict[str, Any]

TEXT_COLUMNS = ("messages", "prompt", "reference", "text", "chosen", "rejected")
"""Columns whose texts are read or said, and which a tokenizer is trained on."""

ROLES = ("system", "developer", "user", "assistant", "tool")
_FORMS: tuple[Form, ...] = ("messages", "prompt", "text")
_OTHER_NAMES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


def form_of(row: Row, where: str) -> Form:
    """Which form a row has. `where` names the row in the error, as in "row 3" or "chat.jsonl:3".

    >>> form_of({"prompt": "What is 2 + 2?", "reference": "4"}, "row 1")
    'prompt'
    >>> form_of({"prompt": [{"role": "user", "content": "Hi"}]}, "row 1")
    'messages'
    """
    for form in _FORMS:
        value = row.get(form)
        if value is not None:
            return "messages" if form == "prompt" and not isinstance(value, str) else form
    found = ", ".join(f"'{name}'" for name in row) or "none"
    hint = next((h for h in (nearest(str(name), _FORMS) for name in row) if h), "")
    raise UserError(f"{where}: expected a column 'prompt', 'messages' or 'text', found {found}.{hint}")


def check_row(row: Row, where: str) -> None:
    """Refuse, by a `UserError` that begins with `where`, a row that cannot be encoded."""
    form = form_of(row, where)
    if form == "messages":
        messages_of(row, where)
    else:
        check_text(row[form], f"{where}: '{form}'")
    for column in TEXT_COLUMNS:
        for text in texts_in(row.get(column)):
            check_text(text, f"{where}: '{column}'")


def texts_in(value: Any) -> Iterator[str]:
    """The texts of a column, in order: itself, its entries, or the contents of its messages.

    >>> list(texts_in([{"role": "user", "content": "Hi"}, ["Ho"], 3]))
    ['Hi', 'Ho']
    """
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            left.append(one.get("content", one.get("text")))
        elif isinstance(one, Sequence):
            left.extend(reversed(one))


def check_text(value: Any, what: str) -> str:
    """Refuse what is no text that can be encoded; `what` names it in the error."""
    if not isinstance(value, str):
        raise UserError(f"{what} must be text, got {_kind(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{what} holds half a surrogate pair at character {error.start + 1}") from error
    return value


def messages_of(row: Row, where: str) -> list[Message]:
    """The messages of a chat row, each content one string; other keys of a message are kept.

    >>> messages_of({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}, "row 1")
    [{'role': 'user', 'content': 'Hi'}]
    """
    name = "messages" if row.get("messages") is not None else "prompt"
    value = row[name]
    if isinstance(value, str) or not isinstance(value, Sequence):
        wanted = "text or a list of messages" if name == "prompt" else "a list of messages"
        raise UserError(f"{where}: '{name}' must be {wanted}, got {_kind(value)}")
    if not value:
        raise UserError(f"{where}: '{name}' is empty, expected at least one message")
    return [_message(message, f"{where}: message {i}") for i, message in enumerate(value, start=1)]


def readable(messages: Sequence[Message]) -> str:
    """A conversation for people: the system prompt left out, one message bare, several with their roles.

    >>> readable([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}])
    'Hi'
    """
    said = [m for m in messages if m["role"] not in ("system", "developer")] or list(messages)
    if len(said) == 1:
        return str(said[0]["content"])
    return "\n".join(f"{m['role']}: {m['content']}" for m in said)


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        keys = ", ".join(f"'{key}'" for key in message) if isinstance(message, Mapping) else _kind(message)
        raise UserError(f"{where}: expected an object with 'role' and 'content', got {keys}")
    role = message["role"]
    if role not in ROLES:
        meant = _OTHER_NAMES.get(role) if isinstance(role, str) else None
        hint = f" Did you mean '{meant}'?" if meant else nearest(str(role), ROLES)
        raise UserError(f"{where}: unknown role {role!r}, expected one of {', '.join(ROLES)}.{hint}")
    return {**message, "content": _content(message["content"], where)}


def _content(content: Any, where: str) -> str:
    """One string: parts such as {"type": "text", "text": ...} are joined."""
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "".join(_part(part, where) for part in content)
    return check_text(content, f"{where}: 'content'")


def _part(part: Any, where: str) -> str:
    if isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else _kind(part)
    raise UserError(f"{where}: a part of its content is {kind!r}; only text can be read")


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
