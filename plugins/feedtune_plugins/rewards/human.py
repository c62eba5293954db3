"""People as a reward: a run asks them about what its policy has just said, and waits for what they say."""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from feedtune.checks import check_choice, check_not_negative, check_positive, check_used
from feedtune.contracts import Sample
from feedtune.feedback import Answer, FeedbackStore
from feedtune.feedback.web.serving import serve_in_thread
from feedtune.rewards import SourceFailure
from feedtune_plugins.rewards.checks import at_least
from feedtune_plugins.rewards.human_questions import Kind, Questions


@dataclass(kw_only=True)
class Human:
    """Ratings or comparisons by people, who answer on a web page while the run waits.

    What is to be judged goes into a store of feedback. Whatever has been answered there counts at once and is
    not asked again, in this run, when it is resumed, or in another one that shares the store.

    A rating is the mean of the first `answers` raters' numbers, 1 to 5. With comparisons, responses to the
    same prompt in one batch are compared with each other and scored by the log-strengths of Bradley and Terry
    (1952), whose mean in each group is 0; a tie counts half. Such scores say something only within a group.

    Args:
        path: the store, an SQLite file.
        key: name of the environment variable with the key that texts are encrypted by; null: they are not.
        kind: "rating" or "comparison".
        answers: people that are asked about each response or pair.
        opponents: of each response in its group, with kind=comparison; null: 1, so that a group of n takes n
            comparisons.
        timeout: seconds that a batch waits for its answers; null: for ever. Responses without one then have
            no score; where there is none at all, the call has failed (see `reward_calls.on_failure`).
        poll: seconds between two looks into the store.
        host: address at which the page is served while the run waits.
        port: of that address; null: the run serves nothing, for `feedtune feedback serve` does.

    Raises:
        UserError: an option is out of range; at a call, the store cannot be used or the port is taken.
        SourceFailure: at a call, nobody answered anything in time.
    """

    path: str
    key: str | None = None
    kind: Kind = "rating"
    answers: int = 1
    opponents: int | None = None
    timeout: float | None = None
    poll: float = 1.0
    host: str = "127.0.0.1"
    port: int | None = 8765

    def __post_init__(self) -> None:
        check_choice("reward.kind", self.kind, get_args(Kind))
        at_least("reward.answers", self.answers, 1)
        if self.opponents is not None:
            at_least("reward.opponents", self.opponents, 1)
        check_used("reward.opponents", self.opponents, self.kind == "comparison", "reward.kind=comparison")
        if self.timeout is not None:
            check_not_negative("reward.timeout", self.timeout)
        check_positive("reward.poll", self.poll)
        self._store = FeedbackStore(self.path, self.key, name="reward.path")
        self._page = ExitStack()  # served from the first question on, to the end of the process
        self._url: str | None = None

    @property
    def label(self) -> str:
        """What messages call it."""
        return "reward=human"

    def __call__(self, samples: Sequence[Sample]) -> Tensor:
        """Scores `[n]` of n samples; NaN for those that nobody has answered in time."""
        questions = Questions.on(samples, self.kind, self.opponents or 1)
        if not questions.items:  # no samples, or nobody to be compared with
            return torch.full((len(samples),), math.nan)
        self._store.add(list(questions.items.values()))
        heard = self._wait(questions)
        scores = questions.ratings(heard) if self.kind == "rating" else questions.strengths(heard)
        return torch.tensor(scores, dtype=torch.float32)

    def _wait(self, questions: Questions) -> Sequence[Answer]:
        """The answers that count, as soon as there are enough or time is up."""
        end = math.inf if self.timeout is None else time.monotonic() + self.timeout
        wanted, told = len(questions.items) * self.answers, False
        while True:
            heard = questions.first_answers(self._store.answers([self.kind]), self.answers)
            left = end - time.monotonic()
            if len(heard) == wanted or left <= 0:
                break
            if not told:
                self._tell(wanted - len(heard))
                told = True
            time.sleep(min(self.poll, left))
        if not heard:
            raise SourceFailure(
                f"{self.label}: none of {len(questions.items)} questions was answered within "
                f"reward.timeout={self.timeout:g} seconds"
            )
        return heard

    def _tell(self, lacking: int) -> None:
        """Say where to answer, and serve the page there."""
        if self.port is not None and self._url is None:
            page = serve_in_thread(self._store, host=self.host, port=self.port, name="reward")
            self._url = self._page.enter_context(page)
        place = shlex.quote(str(self._store.path))
        where = f"at {self._url}" if self._url else f"with: feedtune feedback serve {place}"
        words = f"{self.label}: {lacking} {self.kind}s are waited for; give them {where}"
        print(f"{words} (a login: feedtune feedback account {place} --new rater)", file=sys.stderr)

    def close(self) -> None:
        """Serve the page no longer; the next question that waits serves it again."""
        self._page.close()
        self._url = None
