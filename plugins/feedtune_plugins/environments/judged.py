"""What our environments share: a text that a reward source judges, start rows, and showing the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium

from feedtune.contracts import RewardSource, Sample, as_scores
from feedtune.errors import UserError


class JudgedText(gymnasium.Env[str, str]):
    """An environment whose state is a text and whose reward comes from any `RewardSource`.

    Args:
        name: of the environment, for errors.
        reward: judges texts.
        rows: what an episode begins with; each reset draws one. They reach the reward source as columns.
        render_mode: null, "ansi" (`render()` returns the text) or "human" (every step prints it).
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi", "human"], "render_fps": 4}  # noqa: RUF012
    columns: ClassVar[Sequence[str]] = ()  # that every row needs

    def __init__(
        self,
        *,
        name: str,
        reward: RewardSource | None,
        rows: Sequence[Mapping[str, Any]],
        render_mode: str | None,
    ) -> None:
        if reward is None:
            raise UserError(f"{name}: reward is missing; give it any RewardSource, such as reward=Length()")
        if not rows:
            raise UserError(f"{name}: rows is empty, so no episode can begin")
        for number, row in enumerate(rows, 1):
            for column in self.columns:
                if not isinstance(row.get(column), str):
                    raise UserError(f"{name}: row {number} needs a text '{column}', got {row.get(column)!r}")
        self.reward, self.rows, self.render_mode = reward, [dict(row) for row in rows], render_mode
        self.row: dict[str, Any] = self.rows[0]
        self.text = ""

    def begin(self, seed: int | None) -> None:
        """Seed the environment, if there is a seed, and draw the row of this episode."""
        super().reset(seed=seed)
        self.row = self.rows[int(self.np_random.integers(len(self.rows)))]

    def judge(self, prompt: str, response: str) -> float:
        """The reward source's score; NaN where it has no opinion."""
        value = self.reward([Sample(prompt, response, (), self.row)])
        return float(as_scores(value, 1, type(self.reward).__name__).total[0])

    def observe(self) -> str:
        """The text as it is now; where a human watches, printed too."""
        if self.render_mode == "human":
            self.render()
        return self.text

    def render(self) -> str | None:
        """The text as it is now: returned ("ansi") or printed ("human")."""
        if self.render_mode == "human":
            print(self.text, flush=True)
        return self.text if self.render_mode == "ansi" else None
