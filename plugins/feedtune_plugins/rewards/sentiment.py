"""How positive a response sounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from feedtune.contracts import Sample
from feedtune.errors import missing_extra


@dataclass(kw_only=True)
class Sentiment:
    """VADER's compound score of the response (Hutto and Gilbert 2014): -1 most negative, 1 most positive.

    A lexicon with rules for negation, emphasis and emoji; English only. Text without a known word, and
    hence an empty response, scores 0.

    Args:
        scale: times what; -1 rewards the negative.

    Raises:
        UserError: the extra `sentiment` is not installed.

    >>> Sentiment()([Sample("How was it?", "I love it!"), Sample("How was it?", "")])
    tensor([0.6696, 0.0000])
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ImportError as error:
            raise missing_extra("vaderSentiment", "sentiment", "reward=sentiment") from error
        self._analyzer = SentimentIntensityAnalyzer()

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples, in [-scale, scale]."""
        compound = [self._analyzer.polarity_scores(sample.response)["compound"] for sample in samples]
        return self.scale * torch.tensor(compound, dtype=torch.float32)
