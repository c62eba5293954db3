"""Laws that every reward source obeys, as a suite to subclass and as one function.

    class TestMine(RewardSuite):
        samples = (Sample("Hi", "Hello!"), Sample("Hi", "Go away."))

        def make(self) -> RewardSource:
            return Mine()

Give samples that differ in their scores: laws about order say nothing where all scores are equal.
"""

from __future__ import annotations

import copy
import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from feedtune.contracts import RewardSource, Sample, Scores, as_scores
from feedtune.testing.suite import Suite, require, seeded, untouched_randomness

SAMPLES = (
    Sample("How was it?", "I love it, thanks!", columns={"reference": "I loved it a lot, thank you"}),
    Sample("How was it?", "You stupid idiot, I hate you.", columns={"reference": "It was bad. I hate it."}),
    Sample(
        "Say it", "the cat sat on the mat, displeased " * 4, columns={"reference": "the cat is on the mat"}
    ),
    Sample("Say it", "the cat is on the mat", columns={"reference": None}),
    Sample("Greet", "你好世界 ¡Olé! 😀 Ωμέγα", columns={"reference": "你好世界"}),
    Sample("Greet", "", columns={"reference": "Hello"}),
    Sample("Ask", "Please, please: THANK \n you", columns={"reference": "  "}),
    Sample("2 + 2?", "2 + 2 = 4.", columns={"reference": "4"}),
    Sample(
        "Well?",
        "Yes! No? (Maybe...)",
        ({"role": "system", "content": "Be short."}, {"role": "user", "content": "Well?"}),
        {"reference": "yes"},
    ),
    Sample(
        "Who shut them?",
        "Ben shut upstairs windows; ask ben@example.org or +1 (415) 555-0132, "
        "IBAN DE89 3704 0044 0532 0130 00, card 4111 1111 1111 1111, host 8.8.8.8",
        columns={"reference": "Ben did."},
    ),
    Sample("Help!", "I'm sorry, but I can't help you. Go to hell!", columns={"reference": "I will help."}),
)
"""What laws are tried on where a suite has no samples of its own: texts of many kinds, with a `reference`."""


class RewardSuite(Suite):
    """The laws of `RewardSource`; subclass it in a test module and say how to make one.

    A score may depend on nothing but its sample: rewards are compared between rows that were scored in
    different batches, and a resumed run scores them in other batches than the run that was killed.
    """

    group: ClassVar[str] = "reward"

    samples: Sequence[Sample] = SAMPLES
    """At least two that score differently, as varied as the source can take."""

    tolerance = 0.0
    """Most by which two scores of one sample may differ; above 0 for sources that run a network."""

    @abstractmethod
    def make(self) -> RewardSource:
        """The reward source."""

    def probe(self, made: Any) -> Any:
        """Scores of the samples."""
        return score(made, self.shown())

    def shown(self) -> list[Sample]:
        """Copies of the samples, so that a source that writes into them changes no law."""
        return copy.deepcopy(list(self.samples))

    def test_scores_are_one_a_sample_and_tell_them_apart(self) -> None:
        """Or all other laws say nothing."""
        scores = score(self.make(), self.shown()).total
        found = scores[~scores.isnan()]
        different = len(set(found.tolist()))
        require(
            different >= 2,
            f"samples: {len(scores)} of them, {len(found)} with a score, {different} different scores; give "
            "samples that score differently (`samples` of the suite, --samples FILE of feedtune check)",
        )

    def test_samples_stay_as_they_were(self) -> None:
        before = self.shown()
        given = copy.deepcopy(before)
        score(self.make(), given)
        require(given == before, "purity: the source changes the samples that it is given")

    def test_the_same_samples_score_the_same_again(self) -> None:
        source = self.make()
        check_determinism(source, self.shown(), score(source, self.shown()), self.tolerance)

    def test_scores_come_from_no_global_randomness(self) -> None:
        source = self.make()
        with seeded(0):
            first = score(source, self.shown())
            with untouched_randomness():
                score(source, self.shown())
        with seeded(1):
            again = score(self.make(), self.shown())
        _same(again, first, self.tolerance, "seed: another global seed gives other scores")

    def test_samples_may_stand_in_any_order(self) -> None:
        """Samples in another order have the same scores in that order."""
        source = self.make()
        check_order(source, self.shown(), score(source, self.shown()), self.tolerance)

    def test_a_score_depends_on_no_other_sample(self) -> None:
        """A score does not depend on the rest of its batch."""
        source = self.make()
        check_split(source, self.shown(), score(source, self.shown()), self.tolerance)

    def test_no_opinion_stays_with_its_sample(self) -> None:
        """NaN stays with its sample: the others score beside it as they do without it."""
        source = self.make()
        scores = score(source, self.shown())
        heard = [row for row, total in enumerate(scores.total.tolist()) if total == total]
        if len(heard) == len(self.shown()):
            return self.inapplicable("the source has an opinion on every sample")
        alone = score(source, [self.shown()[row] for row in heard])
        _same(alone, _rows(scores, heard), self.tolerance, "NaN: a sample without a score changes others")
        return None

    def test_silence_is_scored_too(self) -> None:
        """Empty and blank responses are scored like any other, or have no score."""
        check_silence(self.make(), self.shown())

    def test_a_column_that_nobody_asked_for_changes_nothing(self) -> None:
        source = self.make()
        more = [replace(s, columns={**s.columns, "feedtune_check": 1}) for s in self.shown()]
        law = "columns: a column that no reward knows changes scores"
        _same(score(source, more), score(source, self.shown()), self.tolerance, law)


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
    require(list(samples) == before, "purity: the source changes the samples that it is given")
    check_determinism(source, samples, scores, tolerance)
    check_order(source, samples, scores, tolerance)
    check_split(source, samples, scores, tolerance)
    check_silence(source, samples)


def score(source: RewardSource, samples: Sequence[Sample]) -> Scores:
    """The source's scores; total and parts are `[n]` each and finite or NaN."""
    scores = as_scores(source(samples), len(samples), type(source).__name__)
    for name, part in scores.parts.items():
        require(part.shape == (len(samples),), f"shape: part '{name}' is {tuple(part.shape)}, not [n]")
        require(not bool(part.isinf().any()), f"shape: part '{name}' is infinite somewhere")
    return scores


def check_determinism(
    source: RewardSource, samples: Sequence[Sample], scores: Scores, tolerance: float
) -> None:
    """The same samples have the same scores again."""
    _same(score(source, samples), scores, tolerance, "determinism: the same samples score differently again")


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
    require(names[0] == names[1], f"{law}: parts were {names[1]}, are {names[0]}")
    for name, value in _named(expected).items():
        other = _named(found)[name]
        equal = torch.allclose(other, value, rtol=0, atol=tolerance, equal_nan=True)
        require(equal, f"{law}: {name} was {value.tolist()}, is {other.tolist()}")


def _named(scores: Scores) -> Mapping[str, Tensor]:
    return {"total": scores.total} | {f"part '{name}'": part for name, part in scores.parts.items()}
