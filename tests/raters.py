"""Simulated raters who sit at a real server of a store and answer whatever comes, while a test goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from feedtune.contracts import RewardSource, Sample
from feedtune.feedback import FeedbackStore, Kind
from feedtune.feedback.raters.simulated import Habits, SimulatedRater
from feedtune.feedback.raters.simulation import answer_in_turn
from feedtune.feedback.web.serving import serve_in_thread

EXACT = Habits(temperature=0.0, worst=0.0, best=4.0)
"""Rates a response of n letters n + 1, and prefers the longer one."""


def letters(samples: Sequence[Sample]) -> list[float]:
    """A hidden reward."""
    return [float(len(sample.response)) for sample in samples]


@contextmanager
def raters_at(
    url: str,
    store: FeedbackStore,
    *names: str,
    kind: Kind = "rating",
    habits: Habits = EXACT,
    hidden: RewardSource = letters,
) -> Iterator[None]:
    """Raters of these names answer questions of this kind at this server while the block lasts."""
    raters = {store.add_account("rater")[1]: SimulatedRater(name, hidden, habits) for name in names}
    stopping = threading.Event()
    errors = list[Exception]()

    def work() -> None:
        try:
            given = 1
            while not stopping.wait(0.01 if given else 0.05):
                given = answer_in_turn(url, raters, 100, kind=kind)
        except Exception as error:  # the test's to see
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(timeout=20)
    assert not errors, errors


@contextmanager
def answering(
    path: Path,
    *names: str,
    kind: Kind = "rating",
    habits: Habits = EXACT,
    hidden: RewardSource = letters,
) -> Iterator[FeedbackStore]:
    """The store at `path`, served to raters of these names while the block lasts."""
    store = FeedbackStore(path)
    with (
        serve_in_thread(store, requests_a_minute=None) as url,
        raters_at(url, store, *(names or ("ann",)), kind=kind, habits=habits, hidden=hidden),
    ):
        yield store
