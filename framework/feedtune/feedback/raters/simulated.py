"""Raters of whom everything is known: they stand in for people in tests and experiments.

A simulated rater compares by the model of Bradley and Terry (1952): of two responses whose hidden worths are
u and v, the first wins with probability sigmoid((u - v) / temperature). What it says of an item depends on
nothing but the item, its own name and the seed: asked again, on another day or in another order, it says the
same, so an interrupted simulation goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from feedtune.checks import check_choice, check_not_negative, check_unit
from feedtune.contracts import RewardSource, Sample
from feedtune.errors import UserError
from feedtune.feedback.records import Choice, Item
from feedtune.rewards import call_source

Lazy = Literal["random", "first"]

BEST_RATING = 5
EULER = 0.5772156649015329  # the mean of a Gumbel draw


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How raters judge: one set of habits for all of them.

    Args:
        temperature: noise, in units of the hidden reward: of two responses that lie so far apart, the better
            one wins 73 % of the comparisons. 0: always.
        laziness: share of items, in [0, 1], that are answered without looking.
        lazy: what is then said: "random" (either response, any number), or "first" (the response shown
            first, the number 3).
        disagreement: deviation, in units of the hidden reward, of each rater's own opinion of each response
            from what the hidden reward says. It stays the same whenever the rater sees the response.
        indifference: responses whose worths differ by no more are a tie. null: there are no ties.
        worst: hidden reward that is rated 1; what lies between worst and best is rated in proportion.
        best: hidden reward that is rated 5.

    Raises:
        UserError: a value is out of range.
    """

    temperature: float = 0.25
    laziness: float = 0.0
    lazy: Lazy = "random"
    disagreement: float = 0.0
    indifference: float | None = None
    worst: float = -1.0
    best: float = 1.0

    def __post_init__(self) -> None:
        check_not_negative("simulate.temperature", self.temperature)
        check_unit("simulate.laziness", self.laziness)
        check_choice("simulate.lazy", self.lazy, get_args(Lazy))
        check_not_negative("simulate.disagreement", self.disagreement)
        if self.indifference is not None:
            check_not_negative("simulate.indifference", self.indifference)
        if not self.worst < self.best:
            raise UserError(f"simulate.best: expected more than simulate.worst={self.worst}, got {self.best}")


class SimulatedRater:
    """One rater, by name.

    Args:
        name: two raters of other names have other opinions and other luck.
        hidden: the reward that nobody is told.
        habits: how it judges.
        seed: of all that is left to chance.

    >>> from feedtune.feedback.records import Response
    >>> letters = lambda samples: [float(len(sample.response)) for sample in samples]
    >>> two = (Response(id="x", text="Hello!"), Response(id="y", text=""))
    >>> item = Item(id="i", prompt="Hi", responses=two)
    >>> ann = SimulatedRater("ann", letters, Habits(temperature=0.0, worst=0.0, best=6.0))
    >>> ann.compare(item, ("x", "y")), ann.compare(item, ("y", "x"))
    ('a', 'b')
    >>> ann.rate(item, "x"), ann.rate(item, "y")
    (5, 1)
    """

    def __init__(self, name: str, hidden: RewardSource, habits: Habits, seed: int = 0) -> None:
        self.name, self.hidden, self.habits, self.seed = name, hidden, habits, seed

    def compare(self, item: Item, shown: Sequence[str]) -> Choice:
        """Which of two responses is better.

        Args:
            item: with these and perhaps more responses.
            shown: ids of the two, in the order in which they are shown.

        Returns:
            "skip" where the hidden reward has no opinion.
        """
        if self._is_lazy(item):
            return self._chance("lazily", item.id).choice(("a", "b")) if self._at_random else "a"
        worths = self._worths(item, shown)
        a, b = (worths[one] for one in shown)
        if math.isnan(a + b):
            return "skip"
        if self.habits.indifference is not None and abs(a - b) <= self.habits.indifference:
            return "tie"
        lead = a + self._noise(item, shown[0]) - b - self._noise(item, shown[1])
        if lead == 0:  # no noise and no difference
            return "a" if self._chance("even", item.id).choice(sorted(shown)) == shown[0] else "b"
        return "a" if lead > 0 else "b"

    def rate(self, item: Item, response: str) -> int | None:
        """A number from 1 to 5 for one response; None where the hidden reward has no opinion."""
        if self._is_lazy(item):
            return self._chance("lazily", item.id).randint(1, BEST_RATING) if self._at_random else 3
        worth = self._worths(item, (response,))[response]
        if math.isnan(worth):
            return None
        heard = worth + self._noise(item, response) - EULER * self.habits.temperature
        share = (heard - self.habits.worst) / (self.habits.best - self.habits.worst)
        return round(1 + (BEST_RATING - 1) * min(1.0, max(0.0, share)))

    @property
    def _at_random(self) -> bool:
        return self.habits.lazy == "random"

    def _is_lazy(self, item: Item) -> bool:
        return self._chance("lazy", item.id).random() < self.habits.laziness

    def _worths(self, item: Item, shown: Sequence[str]) -> Mapping[str, float]:
        """What this rater thinks of each response: the hidden reward, and its own opinion on top."""
        by_id = {one.id: one for one in item.responses}
        asked = [Sample(item.prompt, by_id[one].text, item.messages, item.columns) for one in shown]
        found = call_source(self.hidden, asked).total.tolist()
        own = self.habits.disagreement
        return {
            one: value + (own * self._chance("taste", one).gauss(0.0, 1.0) if own else 0.0)
            for one, value in zip(shown, found, strict=True)
        }

    def _noise(self, item: Item, response: str) -> float:
        """A Gumbel draw a response: the difference of two is logistic, as Bradley and Terry have it."""
        if not self.habits.temperature:
            return 0.0
        uniform = self._chance("noise", item.id, response).random() or 0.5  # 0 once in 2^53
        return -self.habits.temperature * math.log(-math.log(uniform))

    def _chance(self, purpose: str, *about: str) -> random.Random:
        """Randomness that depends on what it is for, and on nothing that happened before."""
        return random.Random("\n".join((str(self.seed), self.name, purpose, *about)))
