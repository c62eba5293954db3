"""Which questions the members of an ensemble disagree on: those whose answers teach most."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from feedtune.contracts import RewardSource, Sample
from feedtune.errors import UserError
from feedtune.feedback.asking.choosing import Key, Question
from feedtune.feedback.records import Item, Response
from feedtune.rewards import score_samples


class Disagreement:
    """How far the parts of a reward, such as an ensemble's members, disagree on questions.

    For a pair it is the spread of the probabilities that the members give to the first response being
    preferred (as in Christiano et al. 2017, arXiv:1706.03741), for one response the spread of their scores.
    Each response is scored once, when it is first met.

    Args:
        reward: its `Scores.parts` are the members.

    Raises:
        UserError: it has fewer than two parts.
    """

    def __init__(self, reward: RewardSource) -> None:
        self.reward = reward
        self._scores: dict[tuple[str, str], Tensor] = {}  # by item and response, a score of each member [M]
        self._lock = threading.Lock()

    def __call__(self, asked: Sequence[Question]) -> dict[Key, float]:
        """The spread on each question; 0 where a member has no opinion, so that others are asked first."""
        with self._lock:  # models are no place for two threads
            self._learn({(q.item.id, r.id): _sample(q.item, r) for q in asked for r in q.responses})
        return {q.key: _spread([self._scores[q.item.id, r.id] for r in q.responses]) for q in asked}

    def _learn(self, said: dict[tuple[str, str], Sample]) -> None:
        new = {name: sample for name, sample in said.items() if name not in self._scores}
        if not new:
            return
        parts = score_samples(self.reward, list(new.values())).parts
        if len(parts) < 2:
            raise UserError(
                "feedback.choose: disagreement needs a reward of two parts or more, such as an ensemble of "
                f"reward models; this one has {len(parts)}"
            )
        scores = torch.stack([part.double() for part in parts.values()])  # [M, N]
        self._scores |= dict(zip(new, scores.unbind(1), strict=True))


def _spread(scores: Sequence[Tensor]) -> float:
    opinion = torch.sigmoid(scores[0] - scores[1]) if len(scores) == 2 else scores[0]  # [M]
    return float(torch.nan_to_num(opinion.std(correction=0), nan=0.0))


def _sample(item: Item, response: Response) -> Sample:
    return Sample(item.prompt, response.text, item.messages, item.columns)
