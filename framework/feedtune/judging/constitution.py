"""Principles by which a judge criticises and revises responses (Bai et al. 2022, arXiv:2212.08073)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from feedtune.errors import UserError
from feedtune.judging.rubric import Rubric


@dataclass(frozen=True, kw_only=True)
class Constitution:
    """A list of principles.

    Args:
        name: of one word; raters' lists show it.
        principles: sentences such as "The response does not insult anybody."
        rounds: times that a response is criticised and revised, each by a principle that is drawn anew.
        seed: of the draws; another one draws others.

    Raises:
        UserError: there is no principle, or fewer than one round.
    """

    name: str
    principles: Sequence[str]
    rounds: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.principles:
            raise UserError("constitution.principles: expected at least one, got none")
        if self.rounds < 1:
            raise UserError(f"constitution.rounds: expected at least 1, got {self.rounds}")

    @property
    def rubric(self) -> Rubric:
        """All principles as one question, to compare responses by."""
        listed = "\n".join(f"- {principle}" for principle in self.principles)
        levels = ["it breaks most of them", "it breaks one of them", "it keeps to all of them"]
        return Rubric(
            name=self.name, asks=f"Does the response keep to these principles?\n{listed}", levels=levels
        )

    def drawn(self, about: str, turn: int) -> str:
        """The principle for a turn, by chance, but always the same for the same item.

        >>> two = Constitution(name="short", principles=["Be kind.", "Be brief."])
        >>> two.drawn("item", 0) == two.drawn("item", 0)
        True
        """
        digest = hashlib.sha256(f"{self.seed}\n{turn}\n{about}".encode("utf-8", "backslashreplace")).digest()
        return self.principles[int.from_bytes(digest[:8], "big") % len(self.principles)]
