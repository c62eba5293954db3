"""Laws that every reward source obeys, for its author's tests.

    from feedtune.testing.rewards import check_reward_source

    def test_my_reward() -> None:
        check_reward_source(MyReward(), [Sample("Hi", "Hello!"), Sample("Hi", "Go away.")])

Give samples that differ in their scores: laws about order say nothing where all scores are equal.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from feedtune.contracts import RewardSource, Sample, Scores, as_scores


def check_reward_source(source: RewardSource, samples: Sequence[Sample], tolerance: float = 0.0) -> None:
    """Check that a source scores each sample by itself, repeatably, whatever its company.

    Rewards are compared between rows that were scored in different batches, and a resumed run scores them in
    other batches than the run that was killed; so a score may depend on nothing but its sample.

    Args:
        source: the reward source.
        samples: at least two, as varied as the source can take.
        tolerance: most by which two scores of one sample may differ; for sources that run a network.

    Raises:
        AssertionError: a law is broken; the message says which.
        feedtune.errors.UserError: the source raised it, gave too few or too many scores, or an infinite one.

    >>> pair = [Sample("Hi", "a"), Sample("Hi", "bc")]
    >>> check_reward_source(lambda samples: [len(sample.response) for sample in samples], pair)
    >>> check_reward_source(lambda samples: list(range(len(samples))), pair)
    Traceback (most recent call last):
    AssertionError: order: the scores do not follow their samples to other rows: total was ...
    """
    if len(samples) < 2:
        raise ValueError("check_reward_source needs at least two samples")
    before = copy.deepcopy(list(samples))
    scores = score(source, samples)
    _require(list(samples) == before, "purity: the source changes the samples that it is given")
    _same(score(source, samples), scores, tolerance, "determinism: the same samples score differently again")
    check_order(source, samples, scores, tolerance)
    check_split(source, samples, scores, tolerance)
    check_silence(source, samples)


def score(source: RewardSource, samples: Sequence[Sample]) -> Scores:
    """The source's scores; total and parts are `[n]` each and finite or NaN."""
    scores = as_scores(source(samples), len(samples), type(source).__name__)
    for name, part in scores.parts.items():
        _require(part.shape == (len(samples),), f"shape: part '{name}' is {tuple(part.shape)}, not [n]")
        _require(not bool(part.isinf().any()), f"shape: part '{name}' is infinite somewhere")
    return scores


def check_order(source: RewardSource, samples: Sequence[Sample], scores: Scores, tolerance: float) -> None:
    """Samples in another order have the same scores in that order."""
    rows = list(range(len(samples)))
    shuffled = random.Random(0).sample(rows, len(rows))
    for order in (rows[::-1], rows[1:] + rows[:1], shuffled):
        moved = score(source, [samples[row] for row in order])
        law = "order: the scores do not follow their samples to other rows"
        _same(moved, _rows(scores, order), tolerance, law)


def check_split(source: RewardSource, samples: Sequence[Sample], scores: Scores, tolerance: float) -> None:
    """Samples scored one by one, in two halves, twice at once, or not at all score as in one batch."""
    rows = list(range(len(samples)))
    half = len(rows) // 2
    batches = [[row] for row in rows] + [rows[:half], rows[half:], rows + rows]
    for batch in batches:
        some = score(source, [samples[row] for row in batch])
        _same(some, _rows(scores, batch), tolerance, "split: a score depends on the rest of its batch")
    score(source, [])


def check_silence(source: RewardSource, samples: Sequence[Sample]) -> None:
    """Empty and blank responses have a score like any other."""
    for blank in ("", " \n"):
        score(source, [replace(sample, response=blank) for sample in samples])


def _rows(scores: Scores, rows: Sequence[int]) -> Scores:
    index = torch.tensor(rows, dtype=torch.int64)
    return Scores(scores.total[index], {name: part[index] for name, part in scores.parts.items()})


def _same(found: Scores, expected: Scores, tolerance: float, law: str) -> None:
    names = (sorted(found.parts), sorted(expected.parts))
    _require(names[0] == names[1], f"{law}: parts were {names[1]}, are {names[0]}")
    for name, value in _named(expected).items():
        other = _named(found)[name]
        equal = torch.allclose(other, value, rtol=0, atol=tolerance, equal_nan=True)
        _require(equal, f"{law}: {name} was {value.tolist()}, is {other.tolist()}")


def _named(scores: Scores) -> Mapping[str, Tensor]:
    return {"total": scores.total} | {f"part '{name}'": part for name, part in scores.parts.items()}


def _require(holds: bool, law: str) -> None:
    if not holds:
        raise AssertionError(law)
