"""A judge answers what people are asked, and what it says is kept beside what they say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from feedtune.contracts import Sample
from feedtune.errors import UserError
from feedtune.feedback.asking.choosing import Question, questions, shown
from feedtune.feedback.checking import HIGHEST, LOWEST
from feedtune.feedback.ids import item_of, now, one_time_id, response_of
from feedtune.feedback.records import Answer, Choice, Item, Kind
from feedtune.feedback.results.summary import MEASURED
from feedtune.feedback.storage.store import FeedbackStore
from feedtune.judging import Constitution, Judge, Judging, revised

ORDER_DECIDES = "order decides"
"""The tag of a comparison in which a judge preferred another response when their order was turned round."""


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """The node `label` of conf/feedback.yaml."""

    kind: Literal["comparison", "rating"] | None = None  # None: by what the item has
    limit: int | None = None  # most questions of a call
    at_once: int = 32  # after so many questions what was said is kept

    def __post_init__(self) -> None:
        for name, value in {"limit": self.limit, "at_once": self.at_once}.items():
            if value is not None and value < 1:
                raise UserError(f"label.{name}: expected at least 1, got {value}")


@dataclass(frozen=True)
class Labelled:
    """What became of questions."""

    answers: int  # that are in the store now
    silent: int  # questions without one: the reply was no answer
    known: int  # questions that this judge had answered before


def label(
    store: FeedbackStore,
    judging: Judging,
    options: LabelOptions,
    on_answers: Callable[[int], None] = lambda done: None,
) -> Labelled:
    """Let a judge answer every question of the store that it has not answered yet.

    What most others have answered comes first. Stopped and called again it goes on; what it could not answer
    is asked anew.

    Args:
        store: where the items are and the answers go; the rater is the judge's and the rubric's name.
        judging: the judge with a rubric.
        options: of which kind, how many.
        on_answers: told how many questions are done (progress bars).
    """
    rater = judging.label
    asked = list(_asked(store.items(), options.kind))
    answers = store.answers(MEASURED, rater)
    known = {(one.item, tuple(sorted(one.responses))) for one in answers}
    heard = Counter((one.item, one.subject) for kind in MEASURED for one in store.answered(kind))
    left = [one for one in asked if one.key not in known]
    left.sort(key=lambda one: -heard[one.item.id, one.subject])  # agreement is with those who have answered
    chosen = left if options.limit is None else left[: options.limit]
    new = 0
    for start in range(0, len(chosen), options.at_once):
        part = chosen[start : start + options.at_once]
        new += store.answer_all(answers_of(judging, part, rater))
        on_answers(start + len(part))
    return Labelled(new, len(chosen) - new, len(asked) - len(left))


def answers_of(judging: Judging, asked: Sequence[Question], rater: str) -> list[Answer]:
    """What a judge says to questions; of those whose reply was no answer there is none."""
    pairs = [(one, shown(one, rater)) for one in asked if len(one.responses) > 1]
    singles = [one for one in asked if len(one.responses) == 1]
    found = judging.compare([(_sample(one.item, first.text), other.text) for one, (first, other) in pairs])
    answers = [
        _answer(one.item, "comparison", (first.id, other.id), _choice(likely, agreed), rater, not agreed)
        for (one, (first, other)), likely, agreed in zip(
            pairs, found.first.tolist(), found.agreed.tolist(), strict=True
        )
        if not math.isnan(likely)
    ]
    scores = judging.rate([_sample(one.item, one.responses[0].text) for one in singles]).tolist()
    ratings = [
        _answer(one.item, "rating", (one.responses[0].id,), LOWEST + score * (HIGHEST - LOWEST), rater)
        for one, score in zip(singles, scores, strict=True)
        if not math.isnan(score)
    ]
    return answers + ratings


def revise(
    store: FeedbackStore,
    judge: Judge,
    constitution: Constitution,
    options: LabelOptions,
    on_answers: Callable[[int], None] = lambda done: None,
) -> Labelled:
    """Let a judge criticise and revise every response of the store that it has not revised yet.

    A revision is kept as an edit, from which `algorithm=sft` learns; and beside the response that it was made
    from, as an item of which the judge says which is better by the whole constitution, from which reward
    models and `algorithm=dpo` learn (RLAIF, Bai et al. 2022, arXiv:2212.08073).
    """
    judging = Judging(judge, constitution.rubric)
    rater = judging.label
    edits = [one for one in store.answers(["edit"]) if one.by == "judge"]
    revisers = {rater, *(one.rater for one in edits)}
    said = {one.responses[0].id: one for one in reversed(questions(store.items(), "edit"))}  # each once
    asked = [one for one in reversed(said.values()) if one.responses[0].run not in revisers]
    known = {one.responses[0] for one in edits if one.rater == rater}
    left = [one for one in asked if one.responses[0].id not in known]
    chosen = left if options.limit is None else left[: options.limit]
    new = 0
    for start in range(0, len(chosen), options.at_once):
        part = chosen[start : start + options.at_once]
        new += _revised(store, judging, constitution, part)
        on_answers(start + len(part))
    return Labelled(new, len(chosen) - new, len(asked) - len(left))


def _revised(
    store: FeedbackStore, judging: Judging, constitution: Constitution, asked: Sequence[Question]
) -> int:
    """Revise some responses; returns how many edits there are."""
    rater = judging.label
    samples = [_sample(one.item, one.responses[0].text) for one in asked]
    edits, items = [], []
    for one, revision in zip(asked, revised(judging.judge, constitution, samples), strict=True):
        if not revision.text:
            continue
        item, first = one.item, one.responses[0]
        edits.append(_answer(item, "edit", (first.id,), revision.text, rater))
        second = response_of(item.prompt, revision.text, run=rater)
        items.append(item_of(item.prompt, [first, second], messages=item.messages, columns=item.columns))
    store.add(items)
    store.answer_all(answers_of(judging, questions(items, "comparison"), rater))
    return store.answer_all(edits)  # last: until they are there, all of it is done again


def _asked(items: Sequence[Item], kind: Kind | None) -> Iterator[Question]:
    for item in items:
        pairs = questions([item], "comparison")
        yield from questions([item], kind) if kind else pairs or questions([item], "rating")


def _sample(item: Item, text: str) -> Sample:
    return Sample(item.prompt, text, item.messages, item.columns)


def _choice(first: float, agreed: bool) -> Choice:
    """What a probability and its steadiness amount to.

    >>> _choice(0.9, True), _choice(0.2, True), _choice(0.6, False), _choice(0.5, False)
    ('a', 'b', 'tie', 'tie')
    """
    if not agreed or first == 0.5:  # where the order decides, neither is better
        return "tie"
    return "a" if first > 0.5 else "b"


def _answer(
    item: Item, kind: Kind, about: tuple[str, ...], value: str | float, rater: str, turned: bool = False
) -> Answer:
    return Answer(
        id=one_time_id(),
        item=item.id,
        kind=kind,
        responses=about,
        value=value,
        rater=rater,
        by="judge",
        time=now(),
        tags=(ORDER_DECIDES,) if turned and value == "tie" else (),
    )
