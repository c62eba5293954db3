"""`feedtune generate DIR [TEXT]`: let a policy speak; without text, chat."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from feedtune.commands.arguments import TRUST_HELP, Arguments
from feedtune.contracts import Row
from feedtune.errors import UserError
from feedtune.runs.export import Loaded, load
from feedtune.sampling import Decoding, sample
from feedtune.text.visible import plain


def main(arguments: Sequence[str]) -> int:
    """Answer one text, every line of a file or of standard input, or a person at the terminal."""
    given = _parser().read(arguments)
    if given.max_new_tokens < 1:
        raise UserError(f"--max-new-tokens: expected at least 1, got {given.max_new_tokens}")
    loaded = load(given.folder, trust=given.trust)
    speaker = Speaker(loaded, given)
    if given.text is not None:
        print(plain(speaker.answer(given.text)))
    elif given.file is not None or not sys.stdin.isatty():
        for line in _lines(given.file):
            print(plain(speaker.answer(line)))
    else:
        _chat(speaker)
    return 0


def _parser() -> Arguments:
    parser = Arguments(prog="feedtune generate", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run folder or its export/")
    parser.add_argument("text", nargs="?", help="what to answer; without it, chat or read standard input")
    parser.add_argument("--file", type=Path, help="answer every line of this file")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="longest answer (default 64)")
    parser.add_argument("--greedy", action="store_true", help="always the most probable token")
    parser.add_argument("--top-p", type=float, help="draw among the most probable tokens of this total")
    parser.add_argument("--top-k", type=int, help="draw among the k most probable tokens")
    parser.add_argument("--repetition-penalty", type=float, help="above 1: says the same less often")
    parser.add_argument("--temperature", type=float, help="higher is more random; default: the policy's own")
    parser.add_argument("--seed", type=int, default=0, help="other seed, other answer (default 0)")
    parser.add_argument("--system", help="system prompt; default: the model's own")
    parser.add_argument("--plain", action="store_true", help="continue the text; do not answer it as a chat")
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)
    return parser


def _lines(file: Path | None) -> list[str]:
    """The lines that are not blank."""
    source = "standard input" if file is None else f"--file {file}"
    try:
        data = sys.stdin.buffer.read() if file is None else file.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{source}, line {line}: not UTF-8 (byte 0x{data[error.start]:02x})") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{source}: there is no text in it")
    return lines


class Speaker:
    """A loaded policy with the user's choice of decoding."""

    def __init__(self, loaded: Loaded, given: argparse.Namespace) -> None:
        self.policy, self.codec, self.given = loaded.policy, loaded.codec, given
        self.plain = given.plain or not loaded.chat
        if given.temperature is not None:
            if not 0 < given.temperature < math.inf:
                raise UserError(
                    f"--temperature: expected a number above 0, got {given.temperature}; see --greedy"
                )
            self.policy.temperature = given.temperature
        self.decoding = Decoding(
            greedy=given.greedy,
            top_k=given.top_k,
            top_p=given.top_p,
            repetition_penalty=given.repetition_penalty,
        )
        self.generator = torch.Generator().manual_seed(given.seed)

    def answer(self, text: str, before: Sequence[dict[str, str]] = ()) -> str:
        """What the policy says to a text, after the earlier messages of a conversation."""
        prompt = self.codec.prompt(self._row(text, before))
        limit = self.policy.backbone.context_length
        room = self.given.max_new_tokens if limit is None else limit - len(prompt.tokens)
        if room < 1:
            raise UserError(f"the text has {len(prompt.tokens)} tokens; the model's context holds {limit}")
        [response] = sample(
            self.policy,
            [prompt.tokens],
            max_new_tokens=min(self.given.max_new_tokens, room),
            eos_ids=self.codec.eos_ids,
            generator=self.generator,
            decoding=self.decoding,
            stopped=self.codec.stopped if self.codec.stop else None,
        )
        return self.codec.response(response.tokens)

    def _row(self, text: str, before: Sequence[dict[str, str]]) -> Row:
        if self.plain:
            return {"prompt": text}
        system: list[dict[str, Any]] = []
        if self.given.system is not None:
            system = [{"role": "system", "content": self.given.system}]
        return {"messages": [*system, *before, {"role": "user", "content": text}]}


def _chat(speaker: Speaker) -> None:
    print("Say something; an empty line or Ctrl-D ends.")
    before: list[dict[str, str]] = []
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            break
        if not text:
            break
        answer = speaker.answer(text, before)
        print(plain(answer))
        before += [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
