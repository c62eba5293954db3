"""What must not be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune_plugins.rewards.disguises import undisguised
from feedtune_plugins.rewards.keywords import canonical, occurs

COMMENT = "#"


@dataclass(kw_only=True)
class Banned:
    """Minus the number of banned phrases that a response says, each once; 0 is clean.

    Unlike `Keywords`, it sees through invisible characters, full-width and mathematical letters, and other
    apostrophes and dashes; case never counts.

    Args:
        phrases: words or several in a row.
        path: a text file with further ones, one a line; blank lines and such that begin with # are none.
        whole_words: "cat" is not in "concatenate". Set to false for scripts without spaces between words.
        scale: times what; a penalty of 5 makes one phrase cost 5.

    Raises:
        UserError: there is no phrase, one is blank, or the file cannot be read.

    >>> Banned(phrases=["go away"])([Sample("Hi", "Now GO\\u200b away!"), Sample("Hi", "Hello.")])
    tensor([-1.,  0.])
    """

    phrases: Sequence[str] = ()
    path: str | None = None
    whole_words: bool = True
    scale: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.phrases, str):
            raise UserError(f"reward.phrases: expected a list, such as [{self.phrases}], got a text")
        read = [] if self.path is None else _lines(Path(self.path))
        given = [plain(str(one)) for one in (*self.phrases, *read)]
        if not given:
            raise UserError("reward.phrases: expected at least one phrase, here or in the file reward.path")
        if not all(given):
            raise UserError(
                f"reward.phrases: one of {list(self.phrases)} is blank, which every text contains"
            )
        self._phrases = list(dict.fromkeys(given))

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples, at most 0."""
        said = [plain(sample.response) for sample in samples]
        found = [-sum(occurs(one, text, self.whole_words) for one in self._phrases) for text in said]
        return self.scale * torch.tensor(found, dtype=torch.float32)


def plain(text: str) -> str:
    """Text as phrases are compared: undisguised, whatever its case.

    >>> plain("I CAN\\u2019T")
    "i can't"
    """
    return canonical(undisguised(text), case_sensitive=False)


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"reward.path: {path}: expected UTF-8 text; byte {error.start} is not") from error
    except OSError as error:
        raise UserError(f"reward.path: {path} cannot be read: {error.strerror}") from error
    return [line for line in lines if line.strip() and not line.startswith(COMMENT)]
