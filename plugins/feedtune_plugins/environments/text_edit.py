"""feedtune/TextEdit-v0: a text is edited word by word, and every edit pays what it improves."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from gymnasium.spaces import Text

from feedtune.contracts import RewardSource
from feedtune.errors import UserError
from feedtune_plugins.environments.judged import JudgedText

NAME = "feedtune/TextEdit-v0"
GRAMMAR = "insert I WORD, delete I, replace I WORD or stop"
LONGEST_ACTION = 1000  # letters
EDIT = re.compile(r"(?:(insert|replace) ([0-9]{1,9}) (\S+)|(delete) ([0-9]{1,9}))")
ROWS = (
    {"text": "cat the sat", "reference": "the cat sat"},
    {"text": "the the dog ran", "reference": "the dog ran"},
    {"text": "a bird sang", "reference": "a small bird sang"},
)


class TextEdit(JudgedText):
    """Improve a text by edits.

    - Observation: the text as it is now, its words joined by single spaces.
    - Action: a text: "insert I WORD" (before word I, counted from 0), "delete I", "replace I WORD", "stop".
      One that does not parse, or names a place or word that is not there, changes nothing and says so in
      `info["error"]`.
    - Reward: what the reward source thinks of the text now, less what it thought before: the rewards of an
      episode sum to the gain. The text is judged as a response to the text that the episode began with.
    - Terminated: after "stop". Truncated: after `max_edits` actions without one.

    Args:
        reward: judges texts; `reward=bleu` against the column `reference`, or any other.
        rows: start rows; each has a `text` and whatever columns the reward source wants.
        words: words that may be written; null: any.
        max_edits: actions of an episode, at least 1.
        render_mode: null, "ansi" or "human".

    >>> from feedtune_plugins.rewards.bleu import Bleu
    >>> env = TextEdit(reward=Bleu(n_gram=1), rows=[{"text": "the dog", "reference": "the cat"}])
    >>> env.reset(seed=0)
    ('the dog', {})
    >>> env.step("replace 1 cat")
    ('the cat', 0.5, False, False, {})
    >>> env.step("fly")[4]
    {'error': "'fly': expected insert I WORD, delete I, replace I WORD or stop"}
    >>> env.step("stop")[1:4]
    (0.0, True, False)
    """

    columns: ClassVar[Sequence[str]] = ("text",)

    def __init__(
        self,
        *,
        reward: RewardSource | None = None,
        rows: Sequence[Mapping[str, Any]] = ROWS,
        words: Sequence[str] | None = None,
        max_edits: int = 8,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(name=NAME, reward=reward, rows=rows, render_mode=render_mode)
        if max_edits < 1:
            raise UserError(f"{NAME}: max_edits: expected at least 1, got {max_edits}")
        wrong = [word for word in words or () if word != "".join(word.split()) or not word]
        if wrong:
            raise UserError(f"{NAME}: words: expected words without blanks, got {wrong[0]!r}")
        self.words = None if words is None else frozenset(words)
        self.max_edits, self.edits = max_edits, 0
        self.value: float | None = None  # of the text as it is; null: not asked for yet
        columns = [value for row in self.rows for value in row.values() if isinstance(value, str)]
        places = range(max(len(row["text"].split()) for row in self.rows) + max_edits)
        self.texts = ("insert delete replace stop", " ".join(map(str, places)), *columns, *(words or ()))
        letters = string.printable + "".join(self.texts)
        longest = max(len(row["text"]) for row in self.rows) + max_edits * (1 + LONGEST_ACTION)
        self.action_space = Text(LONGEST_ACTION, min_length=0, charset=letters)
        self.observation_space = Text(longest, min_length=0, charset=letters)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict[str, Any]]:
        """A start row's text; `options` are not used."""
        self.begin(seed)
        self.text, self.edits = " ".join(self.row["text"].split()), 0
        self.value = None
        return self.observe(), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Do one edit."""
        self.edits += 1
        before = self._judged() if self.value is None else self.value
        error = None if action == "stop" else self._edit(action)
        self.value = before if error or action == "stop" else self._judged()
        stopped = action == "stop"
        cut = not stopped and self.edits >= self.max_edits
        info = {} if error is None else {"error": f"{action!r}: {error}"}
        return self.observe(), self.value - before, stopped, cut, info

    def _judged(self) -> float:
        return self.judge(self.row["text"], self.text)

    def _edit(self, action: str) -> str | None:
        """Change the text; returns why it cannot be done, if so."""
        found = EDIT.fullmatch(action)
        if found is None:
            return f"expected {GRAMMAR}"
        verb, place = found[1] or found[4], int(found[2] or found[5])
        word, words = found[3], self.text.split()
        last = len(words) - (verb != "insert")
        if place > last:
            return f"expected a place from 0 to {last}" if last >= 0 else "there is no word"
        if word is not None and self.words is not None and word not in self.words:
            return f"'{word}' is none of the words that may be written"
        words[place : place + (verb != "insert")] = [] if word is None else [word]
        self.text = " ".join(words)
        return None
