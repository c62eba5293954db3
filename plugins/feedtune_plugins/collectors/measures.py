"""What collectors report of the scores they bring home."""

from __future__ import annotations

from feedtune.contracts import Scores, mean_of_scored


def reward_metrics(scores: Scores) -> dict[str, float]:
    """Mean score, mean of each named part, and the share of rows on which the source had no opinion.

    >>> import torch
    >>> reward_metrics(Scores(torch.tensor([1.0, float("nan")])))
    {'rollout/reward': 1.0, 'rollout/unscored': 0.5}
    """
    return {
        "rollout/reward": mean_of_scored(scores.total),
        **{f"rollout/reward/{name}": mean_of_scored(part) for name, part in scores.parts.items()},
        "rollout/unscored": float(scores.total.isnan().sum()) / max(1, len(scores.total)),
    }
