"""Simulated raters at a real server: they log in, are asked, and answer in turn, over HTTP as people do."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from feedtune.checks import check_not_negative
from feedtune.errors import UserError
from feedtune.feedback.raters.client import Asked, FeedbackClient, logged_in
from feedtune.feedback.raters.simulated import Habits, SimulatedRater
from feedtune.feedback.records import Kind

LOOK = 0.2  # seconds between two looks for new questions


@dataclass(frozen=True, kw_only=True)
class SimulateOptions(Habits):
    """The node `simulate` of conf/feedback.yaml: habits, and these.

    Args:
        answers: of all raters together that the store is to have, those of earlier simulations included.
        raters: how many.
        kind: of the questions that they answer.
        wait: seconds to go on looking for new questions when all have been answered.

    Raises:
        UserError: a value is out of range.
    """

    answers: int = 400
    raters: int = 3
    kind: Literal["comparison", "rating"] = "comparison"
    wait: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("answers", self.answers), ("raters", self.raters)):
            if value < 1:
                raise UserError(f"simulate.{name}: expected at least 1, got {value}")
        check_not_negative("simulate.wait", self.wait)

    @property
    def habits(self) -> Habits:
        """How the raters judge."""
        return Habits(**{one.name: getattr(self, one.name) for one in fields(Habits)})


def answer_in_turn(
    url: str,
    raters: Mapping[str, SimulatedRater],
    answers: int,
    *,
    kind: Kind = "comparison",
    wait: float = 0.0,
    columns: Callable[[str], Mapping[str, Any]] = lambda item: {},
    on_answer: Callable[[int], None] = lambda done: None,
) -> int:
    """Let raters answer one question each in turn; returns how many answers they gave.

    Args:
        url: of the server.
        raters: by their tokens.
        answers: most of them, of all raters together.
        kind: "comparison" or "rating".
        wait: seconds to go on looking for new questions when all have been answered.
        columns: of an item by its id: the server tells no rater, but a hidden reward may go by the solution.
        on_answer: told how many answers there are, after each.

    Raises:
        UserError: the server refuses a rater or an answer, or has gone.
    """
    given = 0
    with ExitStack() as stack:
        clients = {token: stack.enter_context(logged_in(url, token)) for token in raters}
        silent: dict[str, list[str]] = defaultdict(list)  # responses on which a rater has no opinion
        last = time.monotonic()
        while given < answers:
            before = given
            for token, rater in raters.items():
                if given < answers and _answers_one(clients[token], rater, kind, silent[token], columns):
                    given += 1
                    on_answer(given)
            if given > before:
                last = time.monotonic()
            elif time.monotonic() - last >= wait:
                break
            else:
                time.sleep(LOOK)
    return given


def _answers_one(
    client: FeedbackClient,
    rater: SimulatedRater,
    kind: Kind,
    silent: list[str],
    columns: Callable[[str], Mapping[str, Any]],
) -> bool:
    """Whether there was a question on which the rater had something to say."""
    while asked := client.next(kind, silent):
        asked = replace(asked, item=replace(asked.item, columns=columns(asked.item.id)))
        value = _value(rater, asked)
        if value is not None:
            client.answer(asked, value, by="simulated")
            return True
        silent += asked.shown
    return False


def _value(rater: SimulatedRater, asked: Asked) -> str | float | None:
    if asked.kind == "comparison":
        return rater.compare(asked.item, asked.shown)
    return rater.rate(asked.item, asked.shown[0])
