"""chrF of each response against its row's references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from feedtune_plugins.rewards.checks import at_least
from feedtune_plugins.rewards.references import ReferenceReward
from feedtune_plugins.rewards.text import units


@dataclass(kw_only=True)
class Chrf(ReferenceReward):
    """chrF and chrF++ (Popović 2015, 2017) in [0, 1] by torchmetrics' `chrf_score`.

    With several references, the best one counts. The score is the mean over n-gram orders of each order's
    F-score, as in NLTK and Moses; the paper and sacrebleu average precisions and recalls first. Orders longer
    than a reference are left out: a response that repeats its reference scores 1, however short it is.

    Args:
        n_char_order: longest run of characters that counts.
        n_word_order: longest run of words that counts; 2 is chrF++, 0 chrF.
        beta: weight of recall against precision.
        lowercase: ignore case.

    >>> from feedtune.contracts import Sample
    >>> Chrf()([Sample("Capital of France?", "Paris", columns={"reference": "Paris"})])
    tensor([1.])
    """

    n_char_order: int = 6
    n_word_order: int = 2
    beta: float = 2.0
    lowercase: bool = False

    def __post_init__(self) -> None:
        at_least("reward.n_char_order", self.n_char_order, 1)
        at_least("reward.n_word_order", self.n_word_order, 0)
        at_least("reward.beta", self.beta, 0)

    def score(self, response: str, references: Sequence[str]) -> float:
        """chrF of one response; an empty one scores 0."""
        return max(self._against(response, reference) for reference in references)

    def _against(self, response: str, reference: str) -> float:
        from torchmetrics.functional.text import chrf_score

        with torch.inference_mode():  # torchmetrics counts in tensors; this spares a sixth of its time
            score: Any = chrf_score(
                [response],
                [[reference]],
                n_char_order=min(self.n_char_order, len(units(reference, "characters"))),
                n_word_order=min(self.n_word_order, len(units(reference, "words"))),
                beta=self.beta,
                lowercase=self.lowercase,
            )
        return float(score)
