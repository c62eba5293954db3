"""Which of a run's answers the page shows: those of the same prompts over time, the best, the worst."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from feedtune.report.reading import CREDITS, Answer, Run

EXTREMES = 3  # best and worst answers shown
ROWS, EPOCHS = 4, 4  # of samples over time
CREDITED = 4  # answers of an epoch whose tokens are coloured

T = TypeVar("T")


@dataclass(frozen=True)
class Series:
    """Answers at several epochs, to one prompt or in one place of the rollout."""

    prompt: str | None  # None: each answer is to a prompt of its own
    answers: Sequence[tuple[float, Answer]]  # with their epochs


def over_time(run: Run) -> list[Series]:
    """Samples side by side: of prompts that come again, as often as any; then of places in the rollout."""
    asked: dict[str, dict[float, Answer]] = {}
    for epoch in sorted(run.samples):
        for answer in run.samples[epoch]:
            asked.setdefault(answer.prompt, {}).setdefault(epoch, answer)
    again = sorted((p for p in asked if len(asked[p]) > 1), key=lambda p: -len(asked[p]))[:ROWS]
    rows = [Series(prompt, spread(list(asked[prompt].items()), EPOCHS)) for prompt in again]
    return [*rows, *_places(run, ROWS - len(rows), set(again))]


def _places(run: Run, count: int, shown: set[str]) -> list[Series]:
    """The first answers of some epochs, in their order, but for prompts that are shown already."""
    columns = [
        (epoch, [answer for answer in run.samples[epoch] if answer.prompt not in shown])
        for epoch in spread(sorted(run.samples), EPOCHS)
    ]
    rows = [[(e, answers[i]) for e, answers in columns if i < len(answers)] for i in range(count)]
    return [Series(None, row) for row in rows if row]


@dataclass(frozen=True)
class Shared:
    """What several runs said to one prompt."""

    prompt: str
    answers: Sequence[tuple[int, float | None, Answer]]  # which run, at which epoch (None: evaluated), what


def shared(runs: Sequence[Run]) -> list[Shared]:
    """Prompts that most of the runs were asked: when they were evaluated, or else in training."""
    return _evaluated(runs) or _trained(runs)


def _evaluated(runs: Sequence[Run]) -> list[Shared]:
    """The first held-out prompts that several runs were evaluated on."""
    asked: dict[str, dict[int, Answer]] = {}
    for index, run in enumerate(runs):
        for answer in run.after.answers if run.after else ():
            asked.setdefault(answer.prompt, {}).setdefault(index, answer)
    several = sorted((prompt for prompt in asked if len(asked[prompt]) > 1), key=lambda p: -len(asked[p]))
    return [
        Shared(prompt, [(index, None, said) for index, said in asked[prompt].items()])
        for prompt in several[:ROWS]
    ]


def _trained(runs: Sequence[Run]) -> list[Shared]:
    """Prompts that several runs were asked in training, with the latest answer of each."""
    asked: dict[str, dict[int, tuple[int, float, Answer]]] = {}
    for index, run in enumerate(runs):
        for epoch in sorted(run.samples):
            for answer in reversed(run.samples[epoch]):  # of equal ones the first stays
                asked.setdefault(answer.prompt, {})[index] = (index, epoch, answer)
    several = [prompt for prompt in asked if len(asked[prompt]) > 1]
    latest = sorted(several, key=lambda p: (-len(asked[p]), -min(epoch for _, epoch, _ in asked[p].values())))
    return [Shared(prompt, [asked[prompt][i] for i in sorted(asked[prompt])]) for prompt in latest[:ROWS]]


def spread(items: Sequence[T], count: int) -> list[T]:
    """So many of the items at even distances, the first and the last among them; all where there are fewer.

    >>> spread(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def credited(run: Run) -> list[tuple[float, list[Answer], list[str]]]:
    """Answers whose tokens have numbers, of the last epoch that has some and of the first.

    Each epoch with its answers and the names of their numbers.
    """
    found = {e: [a for a in answers if a.credit] for e, answers in run.samples.items()}
    epochs = sorted(epoch for epoch, answers in found.items() if answers)
    return [_named(e, found[e][:CREDITED]) for e in dict.fromkeys([*epochs[-1:], *epochs[:1]])]


def _named(epoch: float, answers: list[Answer]) -> tuple[float, list[Answer], list[str]]:
    given = {name for answer in answers if answer.credit for name in answer.credit.values}
    return epoch, answers, [name for name in CREDITS if name in given]


def extremes(run: Run) -> tuple[list[Answer], list[Answer]]:
    """The best and the worst answers, of the evaluation or else of the last epoch's samples."""
    pool = run.after.answers if run.after else run.samples[max(run.samples)] if run.samples else []
    ranked = sorted((a for a in pool if not math.isnan(a.reward)), key=lambda a: -a.reward)
    differ = len(ranked) > 1 and ranked[0].reward > ranked[-1].reward
    count = min(EXTREMES, len(ranked) // 2) if differ else 0
    return ranked[:count], ranked[::-1][:count]
