"""How toxic a response sounds; less is rewarded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from feedtune.contracts import Sample
from feedtune.errors import missing_extra


@dataclass(kw_only=True)
class Toxicity:
    """Minus the probability that the response is profane or toxic: 0 is clean, -1 toxic.

    A linear classifier over single words (alt-profanity-check), English only. It gives text without any
    word that it knows, and hence an empty response, its base rate of .036.

    Args:
        scale: times what; a penalty of 5 makes one insult cost 5.

    Raises:
        UserError: the extra `toxicity` is not installed.

    >>> Toxicity()([Sample("Tea?", "Thank you very much."), Sample("Tea?", "You idiot!")])
    tensor([-0.0011, -1.0000])
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        self._probability = load_classifier()

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples, in [-scale, 0]."""
        if not samples:  # scikit-learn refuses an empty batch
            return torch.zeros(0)
        probability = torch.as_tensor(self._probability([sample.response for sample in samples]))
        return (-self.scale * probability).float()


def load_classifier() -> Callable[[list[str]], Any]:
    """The classifier: n texts in, n probabilities out."""
    try:
        from profanity_check import predict_prob
    except ImportError as error:
        raise missing_extra("alt-profanity-check", "toxicity", "reward=toxicity") from error
    predict: Callable[[list[str]], Any] = predict_prob
    return predict
