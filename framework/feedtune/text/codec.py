"""The codec: rows in, tokens out, and responses back to text. It travels with the model.

The law that it keeps: the tokens that a policy is given to answer are exactly the first tokens of the
sequence that supervised tuning would learn from the same row, at every assistant turn. So the turns are
tokenised apart, as they are when one is read and the other generated. Where a tokenizer would never merge
across the boundary, which is the rule, this equals tokenising the templated whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from feedtune.contracts import Row
from feedtune.errors import UserError, nearest
from feedtune.text.chat_template import ChatTemplate, own_template
from feedtune.text.conversation import Message
from feedtune.text.pairs import ANSWERS, answered
from feedtune.text.row_reader import PiecedRow, RowReader
from feedtune.text.tokenizer_facts import (
    encode,
    generation_ends,
    keeps_apart,
    load_tokenizer,
    opening_tokens,
    special_ids,
)

LOSS_ON = ("assistant", "all")
_FILE = "codec.json"


@dataclass(frozen=True)
class EncodedPrompt:
    """What a policy reads before it speaks."""

    tokens: tuple[int, ...]
    text: str  # for people: the prompt, or the conversation without its system prompt
    messages: tuple[Message, ...]  # the conversation before the response; empty for a plain prompt
    row: Row  # the task's row; `reference` is filled in from a final assistant message


@dataclass(frozen=True)
class EncodedSequence:
    """Something to imitate."""

    tokens: tuple[int, ...]
    action: tuple[bool, ...]  # of each token: is it to be learnt?
    prompt: str  # for people: what precedes the last response
    response: str  # the last response, or the whole of a `text`
    messages: tuple[Message, ...] = ()  # the conversation before the last response, if it is one


class Codec:
    """Encodes rows and decodes responses.

    Args:
        tokenizer: any tokenizer of transformers. One without a chat template is given ours.
        system_prompt: opens every chat row that has no system message of its own. Plain rows ignore it.
        stop: strings that end a response and are cut off it. One that is a single special token joins
            `eos_ids`, since special tokens never show in the text.
        eos_ids: tokens that end a response. By default the tokenizer's own and the one by which its chat
            template closes an assistant turn.

    Raises:
        UserError: there is no end-of-text token, or one of `eos_ids` is not in the vocabulary.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        system_prompt: str | None = None,
        stop: Sequence[str] = (),
        eos_ids: Sequence[int] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.system_prompt = system_prompt
        self.stop = tuple(stop)
        if isinstance(stop, str) or not all(self.stop):
            raise UserError(f"tokenizer.stop: expected a list of strings that are not empty, got {stop!r}")
        # A token is a byte at least; a few more, so that the stop string's first character is whole.
        self._stop_tokens = max((len(stop.encode()) for stop in self.stop), default=0) + 4
        self.vocab_size = max(tokenizer.get_vocab().values()) + 1
        self._special = special_ids(tokenizer)
        self._opening = opening_tokens(tokenizer)
        if tokenizer.chat_template is None:
            begins = tokenizer.bos_token_id is not None and self._opening == (tokenizer.bos_token_id,)
            tokenizer.chat_template = own_template(tokenizer, begins)
        self._reader = RowReader(ChatTemplate(tokenizer), system_prompt)
        self._apart = keeps_apart(tokenizer)
        self._blank: dict[tuple[int, ...], bool] = {}
        self.eos_ids = self._end_ids(eos_ids)
        eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        self._closing: int = eos if eos in self.eos_ids else self.eos_ids[0]
        self.pad_id: int = self._closing if pad is None else int(pad)

    # -- encoding ---------------------------------------------------------------------------------------

    def prompt(self, row: Row) -> EncodedPrompt:
        """Encode what one row asks; see `prompts`."""
        return self.prompts([row])[0]

    def prompts(self, rows: Iterable[Row]) -> list[EncodedPrompt]:
        """Encode what rows ask.

        A final assistant message is what is to be said: it becomes the `reference` of the row, unless the
        row has one. A prompt without tokens begins with the end-of-text token, as every new text does.

        Raises:
            UserError: naming the row, counted from 1, that cannot be encoded.
        """
        return self._prompts([(f"row {n}", row) for n, row in enumerate(rows, start=1)])

    def sequence(self, row: Row, loss_on: str = "assistant") -> EncodedSequence:
        """Encode one row to imitate; see `sequences`."""
        return self.sequences([row], loss_on)[0]

    def sequences(self, rows: Iterable[Row], loss_on: str = "assistant") -> list[EncodedSequence]:
        """Encode rows to imitate.

        Args:
            rows: chat rows (a `reference` answers a conversation that ends in a question), plain rows with a
                `reference`, or texts. An end-of-text token closes the last two.
            loss_on: "assistant": every assistant turn with its end-of-turn token, or the reference with its
                end-of-text token; of a text, all. "all": every token but the first, which nothing predicts.

        Raises:
            UserError: naming the row, counted from 1, that cannot be encoded or has nothing to imitate.
        """
        if loss_on not in LOSS_ON:
            raise UserError(
                f"loss_on: expected 'assistant' or 'all', got {loss_on!r}.{nearest(loss_on, LOSS_ON)}"
            )
        return self._sequences([(f"row {n}", row) for n, row in enumerate(rows, start=1)], loss_on)

    def pairs(self, rows: Iterable[Row]) -> list[tuple[EncodedSequence, EncodedSequence]]:
        """Encode preferences: of each row the `chosen` answer and the `rejected` one, each with its prompt.

        To be learnt are the tokens of the answer alone, its end-of-text or end-of-turn token included. The
        forms that such a row may have are those of `feedtune.text.pairs.explicit`.

        Raises:
            UserError: naming the row, counted from 1, that is no pair or cannot be encoded.
        """
        places = [(f"row {n}", row, name) for n, row in enumerate(rows, start=1) for name in ANSWERS]
        read = [(where, *answered(row, name, where)) for where, row, name in places]
        prompts = self._prompts([(where, asked) for where, asked, _ in read])
        whole = self._sequences([(where, said) for where, _, said in read], "assistant")
        answers = iter(_after(len(p.tokens), s) for p, s in zip(prompts, whole, strict=True))
        return list(zip(answers, answers, strict=True))  # one after the other

    # -- decoding ---------------------------------------------------------------------------------------

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens as text, special tokens left out; nothing is cut or stripped."""
        text = self.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def response(self, tokens: Sequence[int]) -> str:
        """What was said: up to the first end-of-text token or stop string, without whitespace around it."""
        end = next((i for i, token in enumerate(tokens) if token in self.eos_ids), len(tokens))
        text = self.decode(tokens[:end])
        cuts = [at for at in (text.find(stop) for stop in self.stop) if at >= 0]
        return text[: min(cuts, default=len(text))].strip()

    def stopped(self, tokens: Sequence[int]) -> bool:
        """Whether the newest tokens complete a stop string. To be asked after every token of a response."""
        if not self.stop:
            return False
        recent = self.decode(tokens[-self._stop_tokens :])
        return any(stop in recent for stop in self.stop)

    # -- on disk ----------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write an ordinary transformers tokenizer and, beside it, `codec.json` with the rest."""
        self.tokenizer.save_pretrained(folder)
        own = {"system_prompt": self.system_prompt, "stop": list(self.stop), "eos_ids": list(self.eos_ids)}
        (folder / _FILE).write_text(json.dumps(own, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Codec:
        """The codec that `save` wrote, or that of any folder of transformers with a tokenizer."""
        tokenizer = load_tokenizer(str(folder), str(folder))
        file = Path(folder) / _FILE
        if not file.is_file():
            return cls.from_pretrained(tokenizer, str(folder))
        try:
            own = json.loads(file.read_text(encoding="utf-8"))
            return cls(
                tokenizer,
                system_prompt=own["system_prompt"],
                stop=own["stop"],
                eos_ids=own["eos_ids"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file}: not a codec that feedtune wrote ({error!r})") from error

    @classmethod
    def from_pretrained(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        *,
        system_prompt: str | None = None,
        stop: Sequence[str] = (),
    ) -> Codec:
        """A codec whose responses also end where the generation config of the model `name` says so."""
        ends = generation_ends(name)
        if tokenizer.eos_token_id is not None or not ends:
            ends = [*cls(tokenizer, stop=stop).eos_ids, *ends]
        known = set(tokenizer.get_vocab().values())
        ends = [end for end in ends if end in known]
        return cls(tokenizer, system_prompt=system_prompt, stop=stop, eos_ids=ends)

    # -- how --------------------------------------------------------------------------------------------

    def _prompts(self, rows: Sequence[tuple[str, Row]]) -> list[EncodedPrompt]:
        """The prompts of rows, each with what errors call it."""
        parsed = [self._reader.prompt(row, where) for where, row in rows]
        return [
            EncodedPrompt(
                (*self._head(row, pieces), *chain.from_iterable(pieces)),
                row.prompt,
                tuple(row.messages),
                row.row,
            )
            for row, pieces in zip(parsed, self._tokens(parsed), strict=True)
        ]

    def _sequences(self, rows: Sequence[tuple[str, Row]], loss_on: str) -> list[EncodedSequence]:
        """The sequences of rows, each with what errors call it."""
        parsed = [self._reader.sequence(row, where, loss_on) for where, row in rows]
        return [
            self._finish(row, pieces, loss_on)
            for row, pieces in zip(parsed, self._tokens(parsed), strict=True)
        ]

    def _finish(self, row: PiecedRow, pieces: list[list[int]], loss_on: str) -> EncodedSequence:
        chat = row.form == "messages"
        tokens = self._head(row, pieces)
        action = [False] * len(tokens)
        for piece, ids in zip(row.pieces, pieces, strict=True):
            learnt = 0 if not piece.assistant else self._turn_length(ids) if chat else len(ids)
            tokens += ids
            action += [True] * learnt + [False] * (len(ids) - learnt)
        closed = (
            bool(tokens) and action[-1] and tokens[-1] in self.eos_ids
        )  # by what was said, not by the head
        if not chat and not closed:
            tokens.append(self._closing)
            action.append(True)
        if loss_on == "all":
            action = [True] * len(tokens)
        learnt_from = (False, *action[1:])  # nothing predicts the first token
        return EncodedSequence(tuple(tokens), learnt_from, row.prompt, row.response, tuple(row.messages))

    def _head(self, row: PiecedRow, pieces: list[list[int]]) -> list[int]:
        """What the tokenizer puts before a plain row, but never twice. Chat templates say it themselves."""
        if row.form == "messages":
            return []
        first = pieces[0]
        if not self._opening:
            return [self._closing] if row.form == "prompt" and not first else []
        return [] if tuple(first[: len(self._opening)]) == self._opening else list(self._opening)

    def _turn_length(self, ids: Sequence[int]) -> int:
        """How many tokens of a turn are the assistant's: none of the blanks after its end-of-turn token."""
        after = next((n for n, token in enumerate(reversed(ids)) if token in self._special), 0)
        if after and self._is_blank(tuple(ids[len(ids) - after :])):
            return len(ids) - after
        return len(ids)

    def _is_blank(self, ids: tuple[int, ...]) -> bool:
        if ids not in self._blank:
            self._blank[ids] = not self.decode(ids).strip()
        return self._blank[ids]

    def _tokens(self, rows: Sequence[PiecedRow]) -> list[list[list[int]]]:
        """The tokens of every piece of every row; one call of the tokenizer where pieces may stand apart."""
        if not self._apart:
            return [list(self._grown([piece.text for piece in row.pieces])) for row in rows]
        texts = [piece.text for row in rows for piece in row.pieces]
        found = iter(self._encode(texts))
        return [[next(found) for _ in row.pieces] for row in rows]

    def _grown(self, pieces: Sequence[str]) -> Iterator[list[int]]:
        """Tokens piece by piece, for tokenizers that would spell a piece differently at a text's beginning.

        The text grows by one piece at a time: where its tokens begin with those found so far, the rest are
        the piece's. Where they do not, two pieces would merge, and the piece is tokenised by itself.
        """
        text, known = "", list[int]()
        for piece in pieces:
            text += piece
            whole = self._encode([text])[0]
            kept = whole[: len(known)] == known
            ids = whole[len(known) :] if kept else self._encode([piece])[0]
            known += ids
            yield ids

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return encode(self.tokenizer, texts)

    def _end_ids(self, given: Sequence[int] | None) -> tuple[int, ...]:
        vocab = self.tokenizer.get_vocab()
        ends = [self.tokenizer.eos_token_id, self._turn_end()] if given is None else list(given)
        ends += [vocab[stop] for stop in self.stop if vocab.get(stop) in self._special]
        found = tuple(dict.fromkeys(int(end) for end in ends if end is not None))
        if not found:
            raise UserError(
                "the tokenizer has no end-of-text token, so no response would ever end: "
                "name one of its tokens by tokenizer.eos_tokens"
            )
        for end in found:
            if not 0 <= end < self.vocab_size:
                raise UserError(
                    f"end-of-text token {end} is not in the vocabulary of {self.vocab_size} tokens"
                )
        return found

    def _turn_end(self) -> int | None:
        """The special token by which the chat template closes an assistant turn, if it is one."""
        talk: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        try:
            pieces = self._reader.template.pieces(talk, False, "")
        except UserError:  # a template that wants more than this; rows will tell
            return None
        said = [piece.text for piece in pieces if piece.assistant]
        ids = self._encode(said[-1:])[0] if said else []
        return next((token for token in reversed(ids) if token in self._special), None)


def _after(length: int, sequence: EncodedSequence) -> EncodedSequence:
    """The sequence, of which nothing among its first tokens is to be learnt."""
    action = (*[False] * length, *sequence.action[length:])
    return replace(sequence, action=action)
