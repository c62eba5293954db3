"""What responses have earned where they were shown: clicks, purchases and dwell from a log."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from feedtune.checks import check_choice, check_positive, check_used
from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.feedback.events.showings import Showing, check_weights
from feedtune_plugins.rewards.event_log import EventLog

Estimator = Literal["mean", "ips"]
CLICKS = {"click": 1.0}


class Logged:
    """The outcome of responses as wholes, from the events of a feedback store. It is read once.

    - `mean`: what the response has earned a showing. NaN for what was never shown to this prompt.
    - `ips`: the inverse-propensity estimate of what it earns, (1 / n) sum r_i / p_i over its own showings, n
      being all showings of the prompt. Unbiased for each response that could have been shown, so a response
      that never was has 0; a policy's mean score is the inverse-propensity estimate of its value. NaN for
      prompts that the log does not know.

    Args:
        path: the store.
        key: name of the environment variable with its key, if it is encrypted.
        weights: what an event of each kind is worth, times its value.
        estimate: which of the two.
        clip: of `ips`: largest 1 / p; bounds the variance, and makes what was rarely shown too small. null:
            no bound, no bias.
        window: seconds after a showing in which events count; null: all do. Younger showings are left out.

    Raises:
        UserError: an argument is out of range; or, when first asked, there is no store, no showing, or
            under `ips` a showing without a propensity.
    """

    def __init__(
        self,
        *,
        path: str,
        key: str | None = None,
        weights: Mapping[str, float] = CLICKS,
        estimate: Estimator = "mean",
        clip: float | None = None,
        window: float | None = None,
    ) -> None:
        check_weights("reward.weights", weights)
        check_choice("reward.estimate", estimate, get_args(Estimator))
        check_used("reward.clip", clip, estimate == "ips", "reward.estimate=ips")
        if clip is not None:
            check_positive("reward.clip", clip)
        self.log = EventLog(path=path, key=key, window=window)
        self.weights, self.estimate, self.clip = dict(weights), estimate, clip

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples."""
        return torch.tensor([self._score(one.prompt, one.response) for one in samples], dtype=torch.float32)

    def _score(self, prompt: str, response: str) -> float:
        said = self._worth.get((prompt, response.strip()))
        if said is None and self.estimate == "ips" and prompt in self._prompts:
            return 0.0
        return math.nan if said is None else said

    @cached_property
    def _prompts(self) -> Counter[str]:
        """How often something was shown to each prompt."""
        return Counter(one.prompt for one in self.log.showings)

    @cached_property
    def _worth(self) -> dict[tuple[str, str], float]:
        """By prompt and response."""
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        for one in self.log.showings:
            found[one.prompt, one.text.strip()].append(one.earned(self.weights) * self._weight(one))
        shown = self._prompts
        return {
            (prompt, text): sum(earned) / (shown[prompt] if self.estimate == "ips" else len(earned))
            for (prompt, text), earned in found.items()
        }

    def _weight(self, showing: Showing) -> float:
        if self.estimate == "mean":
            return 1.0
        if showing.propensity is None:
            raise UserError(
                "reward.estimate: ips needs the probability with which each response was said, and "
                f"'{showing.text[:40]}' was shown without one; log `propensity` with each event shown, or "
                "choose mean"
            )
        return min(1 / showing.propensity, self.clip or math.inf)
