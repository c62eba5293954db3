"""Chat templates: how a conversation becomes one text, and which parts of it the assistant said.

A template prints the whole conversation at once, so where the assistant's words lie must be found out:

- a template that marks them by `{% generation %}` says so itself: one rendering (ours does);
- any other is rendered up to each assistant turn, with the generation prompt, and up to its end. The two
  must be beginnings of the whole; their lengths are then where the turn begins and ends.

Either way an assistant turn begins exactly where a generation prompt ends, so what is trained is what
would have been generated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from feedtune.errors import UserError
from feedtune.text.conversation import Message

ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>")

# Each turn: role token, text, end-of-text token. One rendering is enough thanks to the marks.
TAGGED = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('this template knows no role ' + message['role']) }}{% endif %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# For vocabularies without our role tokens, GPT-2's for one: words that every tokenizer can spell.
PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('this template knows no role ' + message['role']) }}{% endif %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ 'Assistant:' }}{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}"
    "{{ '\\n' }}"
    "{% else %}{{ message['role'] | capitalize + ': ' + message['content'] + '\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

_BOS = "{{ bos_token }}"
_MARK = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")
_OPEN, _CLOSE = "\x02feedtune\x02", "\x03feedtune\x03"  # control characters: no chat holds them
_VISIBLE = re.compile(f"({_OPEN}|{_CLOSE})")


class Piece(NamedTuple):
    """A stretch of a rendered conversation."""

    text: str
    assistant: bool  # what the assistant said, its end-of-turn token included


def own_template(tokenizer: PreTrainedTokenizerBase, begins: bool) -> str:
    """The template for a tokenizer that has none; `begins`: its texts begin with a bos token."""
    tagged = set(ROLE_TOKENS) <= tokenizer.get_vocab().keys()
    return (_BOS if begins else "") + (TAGGED if tagged else PLAIN)


class ChatTemplate:
    """A tokenizer's template, as it is when this is built."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        try:
            self.source: str = tokenizer.get_chat_template()
        except ValueError as error:  # several templates by name, none of them the default
            raise UserError(f"tokenizer.chat_template: {str(error).splitlines()[0]}") from error
        self.own = self.source.removeprefix(_BOS) in (TAGGED, PLAIN)
        self.marked = _MARK.search(self.source) is not None
        self._marking = _MARK.sub(_visible_mark, self.source)
        self._header = self._generation_header() if self.marked and not self.own else ""

    def render(self, messages: Sequence[Message], generation: bool, where: str) -> str:
        """The conversation as the model reads it; `generation`: up to where the assistant is to speak."""
        return self._render(self.source, messages, generation, where)

    def pieces(self, messages: Sequence[Message], generation: bool, where: str) -> list[Piece]:
        """The rendered conversation, cut where the assistant's turns begin and end.

        A conversation to be answered (`generation`) may come from a template that rewrites earlier turns:
        it is then one piece. To be learnt from, every assistant turn must be found.

        Raises:
            UserError: the template refuses the messages, or where the assistant spoke cannot be found.
        """
        if self.own:  # known to mark every answer, just where its generation prompt ends
            return _cut(*_marks(self._render(self._marking, messages, generation, where)))
        text = self.render(messages, generation, where)
        spans = self._marked_spans if self.marked else self._prefix_spans
        try:
            return _cut(text, spans(messages, generation, text, where))
        except _LostError as error:
            if generation:
                return [Piece(text, False)]
            raise UserError(f"{where}: {error}") from error

    def _render(self, source: str, messages: Sequence[Message], generation: bool, where: str) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                list(messages), chat_template=source, add_generation_prompt=generation, tokenize=False
            )
        except (TemplateError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{where}: the model's chat template refuses this conversation: {reason}"
            ) from error
        return str(text)

    def _prefix_spans(
        self, messages: Sequence[Message], generation: bool, text: str, where: str
    ) -> list[tuple[int, int]]:
        """Begin and end of every assistant turn that answers, found by rendering what leads up to it."""
        spans = []
        for i in _answers(messages):
            last = i + 1 == len(messages) and not generation
            before = self.render(messages[:i], True, where)
            after = text if last else self.render(messages[: i + 1], False, where)
            if not (text.startswith(after) and after.startswith(before)):
                raise _rewrites(i)
            spans.append((len(before), len(after)))
        return spans

    def _marked_spans(
        self, messages: Sequence[Message], generation: bool, text: str, where: str
    ) -> list[tuple[int, int]]:
        """Begin and end of every marked stretch, without a role header that the template put inside."""
        bare, marks = _marks(self._render(self._marking, messages, generation, where))
        if bare != text:
            raise UserError(f"{where}: the chat template's generation marks change what it prints")
        header = self._header
        spans = [(start + len(header) * text.startswith(header, start), end) for start, end in marks]
        self._check_last(messages, generation, text, spans, where)
        return spans

    def _check_last(
        self,
        messages: Sequence[Message],
        generation: bool,
        text: str,
        spans: Sequence[tuple[int, int]],
        where: str,
    ) -> None:
        """The last answer must begin where the prompt that asks for it ends."""
        answers = _answers(messages)
        if generation or not answers or not spans:
            return
        prompt = self.render(messages[: answers[-1]], True, where)
        if not text.startswith(prompt) or spans[-1][0] != len(prompt):
            raise _LostError(
                "the chat template's {% generation %} marks do not begin where its generation prompt ends"
            )

    def _generation_header(self) -> str:
        """What the generation prompt adds, as in "<|assistant|>"."""
        asked: list[Message] = [{"role": "user", "content": "a"}]
        try:
            plain, asking = (self.render(asked, generation, "") for generation in (False, True))
        except UserError:  # a template that wants more than a user's word: take its marks as they are
            return ""
        return asking[len(plain) :] if asking.startswith(plain) else ""


class _LostError(Exception):
    """Where the assistant spoke cannot be found."""


def _rewrites(index: int) -> _LostError:
    return _LostError(
        f"the chat template rewrites earlier turns: message {index + 1} reads differently once more follows. "
        "Keep one assistant message a row, the last; or set tokenizer.chat_template to one that does not "
        "rewrite, or that marks the assistant's words by {% generation %}"
    )


def _answers(messages: Sequence[Message]) -> list[int]:
    """Where the assistant answers; what it says before anybody else answers nothing."""
    return [i for i, message in enumerate(messages) if i > 0 and message["role"] == "assistant"]


def _visible_mark(match: re.Match[str]) -> str:
    """A block that prints a mark, with the whitespace control of the one it stands for."""
    left, end, right = match.groups()
    return f"{{%{left} if true %}}{{{{ '{_CLOSE if end else _OPEN}' }}}}{{% endif {right}%}}"


def _marks(marked: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without its marks, and where in it the marked stretches lie."""
    parts, spans, at, start = list[str](), list[tuple[int, int]](), 0, 0
    for part in _VISIBLE.split(marked):
        if part == _OPEN:
            start = at
        elif part == _CLOSE:
            spans.append((start, at))
        else:
            parts.append(part)
            at += len(part)
    return "".join(parts), spans


def _cut(text: str, spans: Sequence[tuple[int, int]]) -> list[Piece]:
    """The text in pieces, at both ends of every span."""
    pieces, at = [], 0
    for start, end in spans:
        pieces += [Piece(text[at:start], False), Piece(text[start:end], True)]
        at = end
    return [piece for piece in [*pieces, Piece(text[at:], False)] if piece.text]
