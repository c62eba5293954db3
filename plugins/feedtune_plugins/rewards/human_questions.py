"""What people are asked about a batch of samples, and what their answers are worth as scores."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from feedtune.contracts import Sample
from feedtune.feedback import Answer, Item, item_of, response_of
from feedtune.feedback.results.leaderboard import bradley_terry, won

Kind = Literal["rating", "comparison"]

SHARE = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
"""What the first of two responses gets of a comparison; `skip` says nothing."""


@dataclass(frozen=True)
class Questions:
    """The questions about one batch. What is said twice to the same prompt is one response.

    Attributes:
        response: of each sample, the number of its response.
        groups: numbers of the responses to each prompt.
        about: the numbers of the one or two responses that each question is about, by its id.
        items: the questions, by id.
    """

    response: Sequence[int]
    groups: Sequence[Sequence[int]]
    about: Mapping[str, Sequence[int]]
    items: Mapping[str, Item]

    @classmethod
    def on(cls, samples: Sequence[Sample], kind: Kind, opponents: int) -> Questions:
        """One for each response, or so many comparisons of each with others of its group."""
        prompts = [json.dumps([one.prompt, [dict(m) for m in one.messages]]) for one in samples]
        said = list(zip(prompts, (one.response for one in samples), strict=True))
        number = {one: n for n, one in enumerate(dict.fromkeys(said))}
        first = {number[one]: sample for one, sample in reversed(list(zip(said, samples, strict=True)))}
        groups: dict[str, list[int]] = defaultdict(list)
        for (prompt, _), n in number.items():
            groups[prompt].append(n)
        asked: Iterable[Sequence[int]] = [(n,) for n in first]
        if kind == "comparison":
            asked = [pair for group in groups.values() for pair in pairs_of(group, opponents)]
        made = [(_item([first[n] for n in one]), one) for one in asked]
        about = {item.id: one for item, one in made}
        return cls([number[one] for one in said], list(groups.values()), about, {i.id: i for i, _ in made})

    def first_answers(self, answers: Iterable[Answer], most: int) -> list[Answer]:
        """Of all answers in a store, in the order of time, the first so many to each of these questions."""
        counts = Counter[str]()
        heard = []
        for one in answers:
            if one.item in self.about and counts[one.item] < most:
                counts[one.item] += 1
                heard.append(one)
        return heard

    def ratings(self, answers: Iterable[Answer]) -> list[float]:
        """The mean rating of each sample; NaN where there is none."""
        numbers: dict[int, list[float]] = defaultdict(list)
        for one in answers:
            numbers[self.about[one.item][0]].append(float(one.value))
        return [fmean(numbers[n]) if numbers[n] else math.nan for n in self.response]

    def strengths(self, answers: Iterable[Answer]) -> list[float]:
        """The log-strength of each sample, with mean 0 in its group; NaN where it was never compared."""
        games = [game for one in answers if (game := self._game(one))]
        found: dict[int, float] = {}
        for group in self.groups:
            own = [game for game in games if int(game[0]) in group]
            met = [str(n) for n in group if any(str(n) in game[:2] for game in own)]
            strength, _ = bradley_terry(won(own, met))
            found |= {int(n): float(value) for n, value in zip(met, strength, strict=True)}
        return [found.get(n, math.nan) for n in self.response]

    def _game(self, answer: Answer) -> tuple[str, str, float] | None:
        """Who met whom, and what the first one got of it."""
        share = SHARE.get(str(answer.value))
        if share is None:
            return None
        turned = answer.responses[0] != self.items[answer.item].responses[0].id
        one, other = self.about[answer.item]
        return str(one), str(other), 1.0 - share if turned else share


def pairs_of(group: Sequence[int], opponents: int) -> list[tuple[int, int]]:
    """Each response with so many that follow it in its group, as on a ring; no pair twice.

    >>> pairs_of([7, 8, 9], 1)
    [(7, 8), (8, 9), (9, 7)]
    >>> pairs_of([7, 8], 3), pairs_of([7], 1)
    ([(7, 8)], [])
    """
    found: dict[frozenset[int], tuple[int, int]] = {}
    for step in range(1, min(opponents, len(group) - 1) + 1):
        for place, one in enumerate(group):
            other = group[(place + step) % len(group)]
            found.setdefault(frozenset((one, other)), (one, other))
    return list(found.values())


def _item(asked: Sequence[Sample]) -> Item:
    first = asked[0]
    return item_of(
        first.prompt,
        [response_of(one.prompt, one.response) for one in asked],
        messages=[dict(message) for message in first.messages],
        columns={str(name): value for name, value in first.columns.items() if _is_json(value)},
    )


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
