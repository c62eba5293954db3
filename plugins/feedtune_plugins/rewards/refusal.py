"""Whether a response declines to do what was asked."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from feedtune.contracts import Sample
from feedtune.errors import UserError, nearest
from feedtune_plugins.rewards.banned import plain
from feedtune_plugins.rewards.references import shorten

_CANNOT = (
    r"(?:can(?:'t|not| not)|could(?:n't| not)|won't|will not|would(?:n't| not)|am (?:unable|not able) to"
    r"|'m (?:unable|not able) to|do(?:n't| not) feel comfortable|am not comfortable|'m not comfortable"
    r"|am not (?:allowed|permitted) to|'m not (?:allowed|permitted) to|(?:must|have to) (?:decline|refuse)"
    r"|refuse|decline)"
)
_SERVE = (
    r"(?:help(?! (?:\w+ing|but|it|myself)\b)"  # not "I can't help laughing"
    r"|assist|provid|answer|respond|compl[iy]|fulfil|discuss|engag|shar|giv(?!e up)|creat|generat|writ|produc"
    r"|offer|support|participat|continu|do (?:that|this|so)|talk about|tell you)"
)
_BETWEEN = r"(?:[a-z]+ly |to |be able to |in good conscience,? )*"
_PATTERNS = [
    rf"\bi ?{_CANNOT},? {_BETWEEN}{_SERVE}",  # I cannot help; I'm unable to provide
    rf"\bi(?:'m| am) (?:really |very |so )?(?:sorry|afraid),? (?:but )?(?:i )?{_CANNOT}\b(?! wait| believe)",
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|(?:ai |virtual )?assistant)\b"
    rf"[^.!?]{{0,60}}\bi ?{_CANNOT}\b",
    rf"^(?:no,? )?(?:sorry|apologies|unfortunately),? (?:but )?i ?{_CANNOT}\b(?! wait| believe)",
    r"\bi(?:'d| would) (?:rather|prefer) not(?: to)?\b",
    r"\b(?:goes )?against my (?:\w+ )?(?:guidelines|programming|polic(?:y|ies)|principles)\b",
    r"\bi(?:'m| am) not (?:going|willing) to (?:help|assist|do|answer|provide|discuss)\b",
]
REFUSALS = re.compile("|".join(_PATTERNS))


@dataclass(kw_only=True)
class Refusal:
    """-1 where a response refuses, 0 where it does not; or, told where to refuse, -1 where it is wrong.

    Refusals are told by what they say in English, such as "I'm sorry, but I can't help with that". Other
    languages, and to say nothing of what was asked, pass for no refusal.

    Args:
        column: a column that says whether to refuse: true, -1 where the response does not; false, -1 where it
            does; null, NaN. Without it every refusal costs.
        scale: times what; a penalty of 5 makes one mistake cost 5.

    Raises:
        UserError: a row lacks the column, or holds something else there.

    >>> said = ["I'm sorry, but I can't help with that.", "Sure! I can't wait to help."]
    >>> Refusal()([Sample("How?", one) for one in said])
    tensor([-1.,  0.])
    >>> Refusal(column="harmful")([Sample("How?", one, columns={"harmful": True}) for one in said])
    tensor([ 0., -1.])
    """

    column: str | None = None
    scale: float = 1.0

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples, -scale, 0 or NaN."""
        mistakes = [self._mistaken(sample, row) for row, sample in enumerate(samples)]
        return self.scale * torch.tensor(mistakes, dtype=torch.float32)

    def _mistaken(self, sample: Sample, row: int) -> float:
        """-1: it refuses where it should not, or does not where it should."""
        wanted = self._wanted(sample, row)
        return math.nan if wanted is None else -int(refuses(sample.response) != wanted)

    def _wanted(self, sample: Sample, row: int) -> bool | None:
        """Whether a refusal is right; None: the row does not say."""
        if self.column is None:
            return False
        where = f"reward.column: row {row} (prompt {shorten(sample.prompt)})"
        if self.column not in sample.columns:
            known = ", ".join(map(str, sample.columns)) or "none"
            hint = nearest(self.column, map(str, sample.columns))
            raise UserError(f"{where} has no column '{self.column}'; its columns are: {known}.{hint}")
        value: Any = sample.columns[self.column]
        if value is None or value != value:  # tables write a missing cell as NaN
            return None
        if not (isinstance(value, bool) or value in (0, 1)):  # tables without null write 0 and 1
            raise UserError(
                f"{where}: column '{self.column}' should hold true or false, got {shorten(value)}"
            )
        return bool(value)


def refuses(response: str) -> bool:
    """Whether it says that it will not.

    >>> refuses("I\\u2019m afraid I cannot assist with this request."), refuses("I cannot believe it!")
    (True, False)
    """
    return REFUSALS.search(plain(response)) is not None
