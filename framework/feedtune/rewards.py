"""Calling a reward source: what it raises or returns wrongly is named, and never trained on."""

from __future__ import annotations

from collections.abc import Sequence

from feedtune.contracts import RewardSource, Sample, Scores, as_scores
from feedtune.errors import UserError
from feedtune.profiling import timed


@timed("reward")
def score_samples(reward: RewardSource, samples: Sequence[Sample]) -> Scores:
    """The source's scores of these samples, checked. In messages it is called by its `label`, if it has one.

    Raises:
        UserError: it raised, returned the wrong number or kind of values, or had no opinion on any row.
    """
    name = type(reward).__name__
    try:
        value = reward(samples)
    except UserError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise UserError(f"reward '{name}' failed on {len(samples)} samples: {kind}: {error}") from error
    scores = as_scores(value, len(samples), name)
    if len(samples) and bool(scores.total.isnan().all()):
        silent = [part for part, values in scores.parts.items() if bool(values.isnan().all())]
        whose = f"sources {', '.join(silent)} of " if silent else ""
        named = getattr(reward, "label", f"reward '{name}'")
        raise UserError(
            f"{whose}{named}: every one of {len(samples)} scores is NaN, so there is nothing to learn"
        )
    return scores
