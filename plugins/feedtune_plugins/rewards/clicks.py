"""What clicks on other rankings say about a ranking, with the effect of the places taken out."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from feedtune.checks import check_positive
from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.feedback.events.rankings import (
    Examination,
    check_examination,
    entries_of,
    examined,
    first_places,
)
from feedtune.feedback.events.showings import Showing, check_weights
from feedtune.functional import discounts
from feedtune_plugins.rewards.event_log import EventLog
from feedtune_plugins.rewards.logged import CLICKS


class Clicks:
    """The estimated gain of a ranking: the worth of each of its entries, discounted by its place.

    An entry's worth to a prompt is the mean, over the showings of that prompt whose ranking had it, of what
    it earned there, divided by the probability that people looked at its place (Joachims et al. 2017,
    arXiv:1608.04468; Wang et al. 2018). Where people click by the position-biased model, that is unbiased for
    the probability that who looks at the entry clicks it, whatever ranked before; and by it every ranking of
    entries that were shown has a score, not only those that were shown themselves.

    The score is sum_k worth(entry_k) / log2(1 + k). Entries that the log does not know at this prompt, and
    repetitions, take their place and earn nothing. NaN for prompts of which nothing was shown.

    Args:
        path: the store.
        key: name of the environment variable with its key, if it is encrypted.
        weights: what an event of each kind is worth, times its value. These events need a position.
        examination: with which probability people look at each place: an exponent e for place^-e, or a list
            from place 1. 0 takes clicks as they are, biased towards what stood at the top.
        clip: largest 1 / examination; bounds the variance, and makes what stood low too small. null: no
            bound, no bias.
        window: seconds after a showing in which events count; null: all do. Younger showings are left out.
        separator: between the entries of a ranking, such as "\\n"; null: whitespace.

    Raises:
        UserError: an argument is out of range; or, when first asked, there is no store, no showing, or
            an event without the position of an entry.
    """

    def __init__(
        self,
        *,
        path: str,
        key: str | None = None,
        weights: Mapping[str, float] = CLICKS,
        examination: Examination = 1.0,
        clip: float | None = None,
        window: float | None = None,
        separator: str | None = None,
    ) -> None:
        check_weights("reward.weights", weights)
        check_examination("reward.examination", examination)
        if clip is not None:
            check_positive("reward.clip", clip)
        self.log = EventLog(path=path, key=key, window=window)
        self.weights, self.examination, self.separator = dict(weights), examination, separator
        self.clip = math.inf if clip is None else clip

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples."""
        return torch.tensor([self._score(one.prompt, one.response) for one in samples], dtype=torch.float32)

    def _score(self, prompt: str, response: str) -> float:
        worth = self._worth.get(prompt)
        if worth is None:
            return math.nan
        places = first_places(entries_of(response, self.separator))
        gains = discounts(max(places.values(), default=0)).tolist()
        return math.fsum(gains[place - 1] * worth.get(entry, 0.0) for entry, place in places.items())

    @cached_property
    def _worth(self) -> dict[str, dict[str, float]]:
        """Of each entry, by prompt."""
        found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for showing in self.log.showings:
            for entry, earned in self._earned(showing).items():
                found[showing.prompt][entry].append(earned)
        return {
            prompt: {entry: sum(values) / len(values) for entry, values in entries.items()}
            for prompt, entries in found.items()
        }

    def _earned(self, showing: Showing) -> dict[str, float]:
        """What each entry of one showing earned, with the effect of its place taken out."""
        entries = entries_of(showing.text, self.separator)
        earned = dict.fromkeys(entries, 0.0)
        for event in showing.events:
            if event.kind not in self.weights:
                continue
            place = event.position
            if place is None or place > len(entries):
                raise UserError(
                    f"reward.path: event '{event.id}' ({event.kind}) needs the position of an entry, from 1 "
                    f"to {len(entries)} in the ranking that was shown, got {place}"
                )
            looked = examined("reward.examination", self.examination, place)
            earned[entries[place - 1]] += self.weights[event.kind] * event.value * min(1 / looked, self.clip)
        return earned
