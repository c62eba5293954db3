"""Scores in units of their own spread, so that penalties and values of one size fit rewards of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from feedtune.checks import check_positive
from feedtune.distributed import sum_over_ranks
from feedtune.experience import Experience, place_scores


class RunningScale(nn.Module):
    """Divides each row's score by the standard deviation of all scores so far (as trl 0.11 does).

    So far: in every rollout up to this one, which counts before it is divided; so the first is divided by its
    own deviation. The deviation is the sample's (n - 1), over all ranks, and as if all rows had come at once
    (Chan et al. 1979). Rows that are not scored do not count. While all scores are the same there is no
    deviation and nothing is divided.

    All rewards of a row are divided; what `center` and `clip` do to its score lands on its last action token.
    Scores of greedy responses (`exp.extra["greedy"]`) do not count and are treated alike.

    Args:
        center: first take off the mean of all scores so far. At gamma 1 all rows of a rollout lose the same,
            which a baseline does as well, and a good one better.
        clip: afterwards a score stays within so many deviations of 0, above 0; null: no bound.

    >>> from feedtune.experience import from_rows
    >>> exp = from_rows([[5, 6], [5, 7], [5, 8]], [[0, 1]] * 3, scores=[10.0, 20.0, 30.0])
    >>> scaled, metrics = RunningScale()(exp)
    >>> scaled.score, metrics
    (tensor([1., 2., 3.]), {'rollout/scale': 10.0})
    """

    rows: Tensor  # scored rows so far
    mean: Tensor  # of their scores
    squares: Tensor  # sum of squared differences from that mean

    def __init__(self, *, center: bool = False, clip: float | None = None) -> None:
        super().__init__()
        if clip is not None:
            check_positive("algorithm.scaling.clip", clip)
        self.center, self.clip = center, clip
        for name in ("rows", "mean", "squares"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))

    def forward(self, exp: Experience) -> tuple[Experience, dict[str, float]]:
        """Count the scores of a rollout, then scale them; `rollout/scale` is what they were divided by."""
        score = exp.reward.double().sum(-1)  # [B]
        self._count(score[exp.scored])
        scale = self._deviation()
        change = torch.where(exp.scored, self._scaled(score) - score / scale, 0)
        reward = exp.reward.double() / scale + place_scores(exp, change).reward
        scaled = replace(exp, reward=reward.to(exp.reward.dtype))
        if "greedy" in exp.extra:
            scaled = scaled.with_(greedy=self._scaled(exp.extra["greedy"]))
        return scaled, {"rollout/scale": float(scale)}

    def _count(self, scores: Tensor) -> None:
        """Merge the moments of these scores, and those of the other ranks, into the running ones."""
        count, total = sum_over_ranks(torch.stack([scores.new_tensor(len(scores)), scores.sum()])).unbind()
        if count == 0:  # a rollout without a score says nothing
            return
        mean = total / count
        squares = sum_over_ranks((scores - mean).square().sum())
        apart, together = mean - self.mean, self.rows + count
        self.squares += squares + apart.square() * self.rows * count / together
        self.mean += apart * count / together
        self.rows += count

    def _deviation(self) -> Tensor:
        deviation = (self.squares / (self.rows - 1)).sqrt()
        return torch.where(deviation > 0, deviation, 1)  # nor is NaN above 0: of one row it is 0 / 0

    def _scaled(self, score: Tensor) -> Tensor:
        scaled = (score - self.mean if self.center else score) / self._deviation()
        return scaled if self.clip is None else scaled.clamp(-self.clip, self.clip)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moved with the model, but never rounded with it: in bfloat16 256 rows and one more are 256."""
        super()._apply(lambda value: value.to(fn(value).device), recurse)  # type: ignore[no-untyped-call]
        return self
