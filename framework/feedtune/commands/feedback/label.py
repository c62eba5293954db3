"""`feedtune feedback label DIR judge=openai rubric=helpful`: let a judge answer what people are asked.

DIR is a run folder, whose policy answers prompts of its task, or a JSONL file of items; without any, what
feedback.path holds is asked. Pairs of responses are compared in both orders, single ones rated from 1 to 5.
What the judge says is kept in the same store as what people say, so that their agreement is one number.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import get_args

from feedtune.commands.feedback.judged import asked, known, say, waiting
from feedtune.config.build import build
from feedtune.feedback.labelling import label
from feedtune.feedback.records import RaterKind
from feedtune.feedback.results.agreement import agreement_between
from feedtune.feedback.results.summary import MEASURED
from feedtune.feedback.storage.store import FeedbackStore
from feedtune.judging import Judging
from feedtune.text.visible import plain


def main(arguments: Sequence[str]) -> int:
    """Ask, keep, and say how far the judge can be relied on."""
    given = asked("label", __doc__, arguments)
    judging = Judging(given.judge, build(given.config.rubric, "rubric"))
    with waiting("asking the judge") as status:
        found = label(
            given.store, judging, given.options, lambda done: status.update(f"the judge has answered {done}")
        )
    say(found, "answers", judging.counts())
    for line in (*canaries(judging, given.store), *agreements(given.store)):
        print(line)
    print(plain(f"rater {judging.label} in {given.store.path}"))
    return 0


def canaries(judging: Judging, store: FeedbackStore) -> list[str]:
    """How many items of known order the judge gets right, in the ways in which it was asked."""
    kinds = {one.kind for one in store.answers(MEASURED, judging.label)}
    lines = []
    for kind in sorted(kinds):
        right = judging.canaries("score" if kind == "rating" else "pairwise")
        if known(right):
            count = len(judging.rubric.canaries)
            lines.append(f"{kind}s: {right:.0%} right of {count} items whose order is known")
    return lines


def agreements(store: FeedbackStore) -> list[str]:
    """How far judges agree with others on what both have answered."""
    answers, lines = store.answers(), []
    others = [other for other in get_args(RaterKind) if other != "judge"]
    for other, kind in itertools.product(others, MEASURED):
        one = agreement_between(answers, kind, "judge", other)
        if one.units:
            alpha = f", alpha {one.alpha:.2f}" if known(one.alpha) else ""
            same = f"{one.percent:.0f} % the same of {one.units} {kind}s"
            lines.append(f"judges and {other} raters: {same}{alpha}")
    return lines
