"""feedtune/CharText-v0: a text grows letter by letter and is judged when it is finished."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from gymnasium.spaces import Text

from feedtune.contracts import RewardSource
from feedtune.errors import UserError
from feedtune_plugins.environments.judged import JudgedText

NAME = "feedtune/CharText-v0"
LETTERS = string.ascii_lowercase + " "


class CharText(JudgedText):
    """Write a text, one letter an action.

    - Observation: the prompt and the letters so far.
    - Action: one letter of the alphabet; with `end`, also the empty text, which finishes the episode.
    - Reward: 0, and at the end the reward source's score of the letters as a response to the prompt.
    - Terminated: when the text has its full length or the end was chosen. Never truncated.

    Args:
        reward: judges the finished text.
        length: letters of a full text, from 1.
        alphabet: the letters; the 26 and the space by default.
        end: whether a text may be finished before it is full.
        rows: start rows; each has a text `prompt` and whatever columns the reward source wants.
        render_mode: null, "ansi" or "human".

    >>> from feedtune_plugins.rewards.length import Length
    >>> env = CharText(reward=Length(target=1), length=2)
    >>> env.reset(seed=0)
    ('', {})
    >>> env.step("h")
    ('h', 0.0, False, False, {})
    >>> env.step("i")[:3]
    ('hi', 1.0, True)
    """

    columns: ClassVar[Sequence[str]] = ("prompt",)

    def __init__(
        self,
        *,
        reward: RewardSource | None = None,
        length: int = 8,
        alphabet: str = LETTERS,
        end: bool = False,
        rows: Sequence[Mapping[str, Any]] = ({"prompt": ""},),
        render_mode: str | None = None,
    ) -> None:
        super().__init__(name=NAME, reward=reward, rows=rows, render_mode=render_mode)
        if length < 1:
            raise UserError(f"{NAME}: length: expected at least 1, got {length}")
        if not alphabet:
            raise UserError(f"{NAME}: alphabet: expected at least one letter, got none")
        self.length, self.written = length, ""
        prompts = [str(row["prompt"]) for row in self.rows]
        self.action_space = Text(1, min_length=0 if end else 1, charset=alphabet)
        self.observation_space = Text(
            length + max(map(len, prompts)), min_length=0, charset=alphabet + "".join(prompts)
        )
        self.texts = (alphabet, *prompts)  # what a tokenizer has to spell

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        """A start row's prompt; `options` are not used."""
        self.begin(seed)
        self.written, self.text = "", self.row["prompt"]
        return self.observe(), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Write one letter, or finish with the empty text."""
        if action not in self.action_space:
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.written += action
        self.text = self.row["prompt"] + self.written
        over = not action or len(self.written) == self.length
        return self.observe(), self.judge(self.row["prompt"], self.written) if over else 0.0, over, False, {}
