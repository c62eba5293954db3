"""ROUGE of each response against its row's references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Literal

from feedtune.errors import missing_extra
from feedtune_plugins.rewards.checks import one_of
from feedtune_plugins.rewards.references import ReferenceReward
from feedtune_plugins.rewards.text import UNITS, Unit, letters_and_digits

METRICS = ("rouge1", "rouge2", "rougeL")
MEASURES = ("fmeasure", "precision", "recall")


@dataclass(kw_only=True)
class Rouge(ReferenceReward):
    """ROUGE (Lin 2004) in [0, 1] by torchmetrics' `rouge_score`, of the best of the row's references.

    Text is lower-cased and cut into runs of letters and digits. On ASCII that is what every ROUGE does; other
    alphabets, which the usual tokeniser drops, count here. There is no rougeLsum: it needs a download.

    Args:
        metric: rouge1 and rouge2 count shared single words and pairs, rougeL the longest common subsequence.
        measure: fmeasure balances precision and recall; recall alone is fed by talking on and on.
        stem: compare stems of English words (Porter), so that "cats" is "cat". Needs the extra `metrics`.
        unit: words, or characters for scripts without spaces.

    >>> from feedtune.contracts import Sample
    >>> Rouge(metric="rouge1")([Sample("?", "a b", columns={"reference": "b c"})])
    tensor([0.5000])
    """

    metric: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    measure: Literal["fmeasure", "precision", "recall"] = "fmeasure"
    stem: bool = False
    unit: Unit = "words"

    def __post_init__(self) -> None:
        one_of("reward.metric", self.metric, METRICS)
        one_of("reward.measure", self.measure, MEASURES)
        one_of("reward.unit", self.unit, UNITS)
        if self.stem:
            try:
                import_module("nltk")
                import_module("nltk.stem.porter")  # torchmetrics will; its error would not name the extra
            except ImportError as error:
                raise missing_extra("nltk", "metrics", "reward.stem") from error

    def score(self, response: str, references: Sequence[str]) -> float:
        """ROUGE of one response; an empty one scores 0."""
        from torchmetrics.functional.text import rouge_score

        scores = rouge_score(
            response,
            [references],
            accumulate="best",  # by F-measure, whatever `measure` is
            rouge_keys=self.metric,
            use_stemmer=self.stem,
            normalizer=str.lower,
            tokenizer=partial(letters_and_digits, unit=self.unit),
        )
        return float(scores[f"{self.metric}_{self.measure}"])
