"""Which question a rater is asked next.

A question is a pair of an item's responses to compare, or one of them to rate or to edit. Everything here is
a function of the items and answers so far: who reloads the page is asked the same again, and nothing has to
be remembered where answers are kept.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from feedtune.feedback.ids import subject_of
from feedtune.feedback.records import Answered, Item, Kind, Response

Key = tuple[str, tuple[str, ...]]
"""What a question is known by: its item, and its responses in the order of their ids."""


@dataclass(frozen=True)
class Question:
    """Responses of an item to be judged together: two of a comparison, else one."""

    item: Item
    responses: tuple[Response, ...]

    @cached_property
    def key(self) -> Key:
        """The same whatever the order of the responses."""
        return self.item.id, tuple(sorted(one.id for one in self.responses))

    @cached_property
    def subject(self) -> str:
        """The same as that of its answers."""
        return subject_of([one.id for one in self.responses])


def questions(items: Iterable[Item], kind: Kind) -> list[Question]:
    """All that can be asked: every pair of an item's different texts, or every response.

    >>> item = Item(id="i", prompt="Hi", responses=(Response(id="x", text="Ho"), Response(id="y", text="Ha")))
    >>> len(questions([item], "comparison")), len(questions([item], "rating"))
    (1, 2)
    """
    if kind != "comparison":
        return [Question(item, (one,)) for item in items for one in item.responses]
    return [
        Question(item, pair)
        for item in items
        for pair in itertools.combinations(item.responses, 2)
        if pair[0].text != pair[1].text
    ]


def choose(
    asked: Sequence[Question],
    answered: Iterable[Answered],
    kind: Kind,
    rater: str,
    *,
    worth: Mapping[Key, float] | None = None,
    overlap: float = 0.2,
    skipped: Collection[Key] = (),
) -> Question | None:
    """The next question for a rater; None when all are answered.

    Questions with the fewest answers come first. With probability `overlap` it is one that others have
    answered instead, if there is any: where nobody is asked the same, agreement cannot be known.

    Args:
        asked: all questions of this kind.
        answered: who has answered what of this kind so far.
        kind: of the questions.
        rater: whose turn it is.
        worth: among those, the question of the greatest worth is chosen; None: one by chance.
        overlap: from 0 to 1.
        skipped: questions to leave out.
    """
    said: dict[tuple[str, str], set[str]] = defaultdict(set)
    for item, subject, who in answered:
        said[item, subject].add(who)
    raters = {one.key: said[one.item.id, one.subject] for one in asked}
    left = [one for one in asked if rater not in raters[one.key] and one.key not in skipped]
    if not left:
        return None
    mine = sum(rater in others for others in said.values())
    counts = {one.key: len(raters[one.key]) for one in left}
    shared = [one for one in left if counts[one.key]]
    if not shared or chance(rater, kind, mine) >= overlap:
        fewest = min(counts.values())
        shared = [one for one in left if counts[one.key] == fewest]
    return max(shared, key=lambda one: ((worth or {}).get(one.key, 0.0), chance(rater, kind, one.key)))


def shown(question: Question, rater: str) -> tuple[Response, ...]:
    """The responses in the order in which this rater sees them: by chance, but always the same."""
    turned = chance(rater, "order", question.key) < 0.5
    return question.responses[::-1] if turned else question.responses


def chance(*parts: object) -> float:
    """A number in [0, 1), uniform over whatever is said, and always the same for the same.

    >>> chance("ann", 1) == chance("ann", 1) != chance("bob", 1)
    True
    """
    digest = hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
