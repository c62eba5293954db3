"""Rows in pieces of text: what is read, what is to be said."""

from __future__ import annotations

from typing import NamedTuple

from feedtune.contracts import Row
from feedtune.errors import UserError
from feedtune.text.chat_template import ChatTemplate, Piece
from feedtune.text.conversation import Form, Message, check_text, form_of, messages_of, readable


class PiecedRow(NamedTuple):
    """A row cut into pieces, not yet tokenised."""

    form: Form
    pieces: list[Piece]
    prompt: str
    response: str
    messages: list[Message]  # the conversation before the response
    row: Row


class RowReader:
    """Reads rows of every form. `where` names the row in errors, as in "row 3"."""

    def __init__(self, template: ChatTemplate, system_prompt: str | None) -> None:
        self.template = template
        self.system_prompt = system_prompt

    def prompt(self, row: Row, where: str) -> PiecedRow:
        """What a row asks: all of it that is to be read before the answer."""
        form = form_of(row, where)
        if form == "text":
            raise UserError(
                f"{where}: a 'text' asks nothing; generation needs a column 'prompt' or 'messages'"
            )
        if form == "prompt":
            asked = check_text(row["prompt"], f"{where}: 'prompt'")
            return PiecedRow(form, [Piece(asked, False)], asked, "", [], row)
        messages = messages_of(row, where)
        if messages[-1]["role"] == "assistant":
            *messages, answer = messages
            if row.get("reference") is None:
                row = {**row, "reference": answer["content"]}
        if not messages:
            raise UserError(f"{where}: its only message is the assistant's, so there is nothing to answer")
        opened = self._opened(messages)
        return PiecedRow(form, self.template.pieces(opened, True, where), readable(messages), "", opened, row)

    def sequence(self, row: Row, where: str, loss_on: str) -> PiecedRow:
        """What a row shows: what is read and what was said."""
        form = form_of(row, where)
        if form == "messages":
            return self._chat(row, where, loss_on)
        if form == "text":
            text = check_text(row["text"], f"{where}: 'text'")
            if not text:
                raise UserError(f"{where}: 'text' is empty, so there is nothing to imitate")
            return PiecedRow(form, [Piece(text, True)], "", text, [], row)
        asked = check_text(row["prompt"], f"{where}: 'prompt'")
        if row.get("reference") is None:
            raise UserError(f"{where}: a plain prompt needs a 'reference' to imitate, and there is none")
        said = check_text(row["reference"], f"{where}: 'reference'")
        return PiecedRow(form, [Piece(asked, False), Piece(said, True)], asked, said, [], row)

    def _chat(self, row: Row, where: str, loss_on: str) -> PiecedRow:
        messages = messages_of(row, where)
        if messages[-1]["role"] != "assistant" and row.get("reference") is not None:
            said = check_text(row["reference"], f"{where}: 'reference'")
            messages.append({"role": "assistant", "content": said})
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        opened = self._opened(messages)
        pieces = self.template.pieces(opened, False, where)
        if loss_on == "assistant" and not any(piece.assistant for piece in pieces):
            raise UserError(
                f"{where}: no assistant message answers another, and there is no 'reference' to imitate"
            )
        last = answers[-1] if answers else len(messages)
        said = str(messages[last]["content"]) if answers else ""
        before = opened[: len(opened) - len(messages) + last]
        return PiecedRow("messages", pieces, readable(messages[:last]), said, before, row)

    def _opened(self, messages: list[Message]) -> list[Message]:
        """With the system prompt in front, unless the conversation brings its own."""
        if self.system_prompt is None or messages[0]["role"] in ("system", "developer"):
            return messages
        return [{"role": "system", "content": self.system_prompt}, *messages]
