"""Transcripts: what was observed and said by turns, token by token, and how a policy goes on with them.

A transcript is what the policy reads: observations, encoded, and between them the very tokens that it chose,
never text that was tokenised anew. Each transcript has random numbers of its own, so what others say beside
it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune.profiling import timed
from feedtune.sampling import Decoding, Speaker, pad_right
from feedtune.text.codec import Codec
from feedtune.text.tokenizer_facts import encode

Step = Literal["turn", "token"]
Observe = Literal["new", "all"]


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How transcripts come about.

    Args:
        codec: text to tokens and back.
        step: "turn": the policy speaks until an end-of-text token, a stop string or `max_new_tokens`, and
            what it said is one action. "token": the text of every single token is an action.
        observe: "new": of an observation that repeats the last one and the action, only what follows them is
            appended. "all": every observation as it is.
        max_new_tokens: most tokens of an action; longer ones are cut.
        context_length: most tokens of a transcript; null: no limit.
    """

    codec: Codec
    step: Step = "turn"
    observe: Observe = "new"
    max_new_tokens: int = 16
    context_length: int | None = None


@dataclass
class Transcript:
    """One transcript. The lists have one entry a token."""

    manner: Manner
    generator: torch.Generator  # of this transcript alone
    tokens: list[int] = field(default_factory=list)
    action: list[bool] = field(default_factory=list)  # chosen by the policy
    reward: list[float] = field(default_factory=list)  # of a turn, on its last token
    logp: list[float] = field(default_factory=list)  # of chosen tokens, as they were drawn
    said: list[tuple[str, str]] = field(default_factory=list)  # for people: role and text of each message
    terminated: bool = False  # it came to its own end
    done: bool = False  # no reward follows; so too where it ended in another way, but not where it was cut
    speaking: bool = True  # whether the policy's turn goes on
    _unread: int = 0  # tokens at the end that the policy has not read
    _turn: int = 0  # tokens of this turn
    _seen: str = ""  # the last observation

    @property
    def room(self) -> int:
        """Tokens that the transcript may still have, at most `max_new_tokens`."""
        limit, most = self.manner.context_length, self.manner.max_new_tokens
        return most if limit is None else min(most, limit - len(self.tokens))

    def open(self, observation: str) -> None:
        """Begin with the first observation, as a prompt."""
        self.said.append(("user", observation))
        self._append(self.manner.codec.prompt({"prompt": observation}).tokens, chosen=False)
        self._seen = observation
        if self.room < 1:
            raise UserError(
                f"the first observation has {len(self.tokens)} tokens, which leaves no room in the "
                f"backbone's context of {self.manner.context_length}"
            )

    def say(self, token: int, logp: float) -> None:
        """Add a token that the policy chose; it may end the turn."""
        self._append([token], chosen=True)
        self.logp[-1] = logp
        self._turn += 1
        codec = self.manner.codec
        ended = self.manner.step == "token" or token in codec.eos_ids or codec.stopped(self._newest())
        self.speaking = not ended and self._turn < self.manner.max_new_tokens and self.room > 0

    def close_turn(self) -> str:
        """End the turn; returns what was said, as text: the action."""
        codec, newest = self.manner.codec, self._newest()
        text = codec.decode(newest) if self.manner.step == "token" else codec.response(newest)
        self.said.append(("assistant", text))
        self._turn, self.speaking = 0, True
        return text

    def earn(self, reward: float) -> None:
        """Put the reward of the turn on its last token. To be called before `hear`."""
        self.reward[-1] += reward

    def hear(self, observation: str) -> None:
        """Append what is new in an observation, as far as the context holds it."""
        said = self.said[-1][1]
        known = self._seen + said
        # Without an action between them, the same observation may well be a new one.
        repeats = self.manner.observe == "new" and said != "" and observation.startswith(known)
        new = observation[len(known) :] if repeats else observation
        tokens, limit = encode(self.manner.codec.tokenizer, [new])[0], self.manner.context_length
        self._append(tokens if limit is None else tokens[: limit - len(self.tokens)], chosen=False)
        self._seen = observation
        if new:
            self.said.append(("user", new))

    def take_unread(self) -> list[int]:
        """The tokens that the policy has not read yet; from now on it has."""
        unread = self.tokens[len(self.tokens) - self._unread :]
        self._unread = 0
        return unread

    def uniform(self) -> float:
        """The random number of the next token."""
        return float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def _newest(self) -> list[int]:
        return self.tokens[len(self.tokens) - self._turn :]

    def _append(self, tokens: Sequence[int], chosen: bool) -> None:
        count = len(tokens)
        self.tokens += tokens
        self.action += [chosen] * count
        self.reward += [0.0] * count
        self.logp += [0.0] * count
        self._unread += count


class Talk:
    """A policy in the midst of several transcripts, which are read side by side and each token once.

    Args:
        policy: in evaluation mode.
        decoding: how tokens are chosen.
    """

    def __init__(self, policy: Policy, decoding: Decoding | None = None) -> None:
        self.policy, self.decoding = policy, decoding
        self.device = next(policy.parameters()).device
        self._speaker: Speaker | None = None

    @timed("sampling")
    @torch.no_grad()
    def turn(self, rows: Sequence[Transcript]) -> None:
        """Everybody speaks one turn; rows that have finished theirs wait. The same rows until `keep`."""
        speaking = list(range(len(rows)))
        while speaking:
            speaker = self._read(rows)
            numbers = [rows[row].uniform() for row in speaking]
            uniforms = torch.tensor(numbers, dtype=torch.float64, device=self.device)
            some = torch.tensor(speaking, device=self.device) if len(speaking) < len(rows) else None
            tokens, logps = speaker.choose(uniforms, some)
            for row, token, logp in zip(speaking, tokens.tolist(), logps.tolist(), strict=True):
                rows[row].say(token, logp)
            speaking = [row for row in speaking if rows[row].speaking]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows; the others leave."""
        if self._speaker is not None:
            self._speaker.keep(torch.tensor(rows, device=self.device))

    def _read(self, rows: Sequence[Transcript]) -> Speaker:
        """What is new in each row; whole rows anew where pads of waiting rows have used up the context."""
        news = [row.take_unread() for row in rows]
        width, limit = max(map(len, news)), self.policy.backbone.context_length
        full = self._speaker is not None and limit is not None and self._speaker.width + width > limit
        if self._speaker is None or full:
            self._speaker = Speaker(self.policy, self.decoding)
            news = [row.tokens for row in rows]
        if any(news):
            tokens, mask = pad_right(news, self.device)
            self._speaker.read(tokens, None if bool(mask.all()) else mask)
        return self._speaker


def as_experience(rows: Sequence[Transcript], group: Sequence[int] | None = None) -> Experience:
    """Transcripts as rows of experience; credit falls on the tokens that the policy chose, as it chose them.

    A transcript with a reward of NaN is not scored: it takes part in nothing.
    """
    exp = from_rows(
        [row.tokens for row in rows],
        [row.action for row in rows],
        group=group,
        pad_id=rows[0].manner.codec.pad_id,
    )
    reward = _column([row.reward for row in rows], exp)
    scored = ~reward.sum(-1).isnan()
    return replace(
        exp,
        action=exp.action & scored[:, None],
        reward=torch.where(scored[:, None], reward, 0),
        sampler_logp=_column([row.logp for row in rows], exp),
        done=torch.tensor([row.done for row in rows]),
        ended=torch.tensor([row.terminated for row in rows]),
        scored=scored,
    )


def _column(rows: Sequence[Sequence[float]], exp: Experience) -> Tensor:
    """Ragged numbers as `[B, T]` float32, filled up with 0."""
    width = exp.tokens.shape[1]
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], dtype=torch.float32)
