"""Feedback: rows to train on from what people, judges and simulated raters have said."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain, combinations
from typing import Any, Literal, NamedTuple, get_args

from feedtune.contracts import Row, Task
from feedtune.errors import UserError, nearest
from feedtune.feedback import Answer, FeedbackStore, Item, Kind, RaterKind, Response, store_path

What = Literal["comparisons", "ratings", "rewards", "edits"]
HeldOut = Literal["prompt", "rater"]

KINDS: dict[What, Kind] = {
    "comparisons": "comparison",
    "ratings": "rating",
    "rewards": "rating",
    "edits": "edit",
}
"""The kind of answers that each kind of rows is made of."""

OWN_COLUMNS = frozenset(
    ("prompt", "messages", "text", "chosen", "rejected", "reference", "margin", "reward", "rater", "raters")
)
"""Columns that the answers make; a column of the item with such a name is left out."""


class Said(NamedTuple):
    """An answer and what it is about."""

    answer: Answer
    item: Item


class Feedback(Task):
    """Rows from a feedback store, by the kind of answers.

    - "comparisons": `{prompt, chosen, rejected, rater}`, one for each that prefers a response. Ties, both bad
      and skipped ones make no row, nor do responses that are the same text; `left_out` counts them.
    - "ratings": `{prompt, chosen, rejected, margin, raters}`, for each two responses to a prompt whose mean
      ratings differ, by how much.
    - "rewards": `{prompt, reference, reward, raters}`: a response and its mean rating.
    - "edits": `{prompt, reference, rater}`: what the rater would have said.

    Conversations have `messages` in place of `prompt`. Further columns of the items come along.

    Args:
        path: must be given: the store, or a run folder that has one.
        key: the name of the environment variable with the key of an encrypted store.
        kind: which rows.
        raters: pseudonyms whose answers count; None: all.
        by: whose answers count: of "person", "judge" and "simulated" raters; None: of all.
        tags: answers with one of these tags count; None: all.
        held_out: what is held out for evaluation: "prompt": all answers to some prompts; "rater": all
            answers of some raters, whose prompts others may have answered in training.
        eval_fraction: the part of the prompts or raters, at least one. 0: nothing is held out.
        seed: which ones.

    Raises:
        UserError: an argument is out of range; there is no such store, or it makes no row.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        key: str | None = None,
        kind: What = "comparisons",
        raters: Sequence[str] | None = None,
        by: Sequence[RaterKind] | None = None,
        tags: Sequence[str] | None = None,
        held_out: HeldOut = "prompt",
        eval_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        _check_choice("kind", kind, get_args(What))
        _check_choice("held_out", held_out, get_args(HeldOut))
        for one in by or ():
            _check_choice("by", one, get_args(RaterKind))
        if not 0 <= eval_fraction < 1:
            raise UserError(f"task.eval_fraction: expected 0 up to but not 1, got {eval_fraction}")
        if not path:
            raise UserError("task.path: not given; name a feedback store, or a run folder that has one")
        self.store = FeedbackStore(store_path(path), key, name="task.path")
        self.kind, self.raters, self.by, self.tags = kind, raters, by, tags
        self.held_out, self.eval_fraction, self.seed = held_out, eval_fraction, seed
        self.left_out: Counter[str] = Counter()
        """How many answers make no row, by what they say."""

    def load(self, split: str) -> Sequence[Row]:
        if split not in ("train", "eval"):
            raise ValueError(f"expected the split 'train' or 'eval', got {split!r}")
        train, held_out = self._splits
        return train if split == "train" else held_out

    @cached_property
    def _splits(self) -> tuple[list[Row], list[Row]]:
        said = [one for one in self._said() if self._makes_row(one)]
        if not said:
            raise UserError(f"task.path: {self.store.path} has no {self.kind} to train on{self._why()}")
        of_owner: dict[Any, list[Said]] = {}
        for one in said:
            of_owner.setdefault(self._owner(one), []).append(one)
        apart = self._hold_out([owner for owner, some in of_owner.items() if any(self._rows(some))])
        train, held_out = (
            list(self._rows([one for one in said if (self._owner(one) in apart) == wanted]))
            for wanted in (False, True)
        )
        if not train:
            raise UserError(f"task.path: {self.store.path} gives no row to train on: {self._too_few()}")
        return train, held_out

    def _said(self) -> Iterator[Said]:
        """The answers of the right kind that count, by time."""
        answers = self.store.existing().answers([KINDS[self.kind]])
        items = {item.id: item for item in self.store.items()}  # later: others may be adding both
        for answer in answers:
            wanted = (
                (self.raters is None or answer.rater in self.raters)
                and (self.by is None or answer.by in self.by)
                and (self.tags is None or not set(self.tags).isdisjoint(answer.tags))
            )
            if wanted:
                yield Said(answer, items[answer.item])

    def _makes_row(self, one: Said) -> bool:
        if self.kind != "comparisons":
            return True
        why = None if one.answer.value in ("a", "b") else str(one.answer.value)
        if why is None and len(set(_shown(one))) == 1:
            why = "same text"
        self.left_out.update([] if why is None else [why])
        return why is None

    def _why(self) -> str:
        if self.left_out:
            return ": " + ", ".join(f"{count} {value}" for value, count in sorted(self.left_out.items()))
        known = sorted({one.rater for one in self.store.raters()})
        for rater in self.raters or ():
            if rater not in known:
                return f"; task.raters: nobody is called '{rater}'.{nearest(rater, known)}"
        counts = Counter(one.kind for one in self.store.answers())
        have = ", ".join(f"{count} of the kind {kind}" for kind, count in counts.items()) or "none at all"
        return f"; it has answers: {have}"

    def _too_few(self) -> str:
        if self.kind == "ratings":
            return "there are no two responses to one prompt whose mean ratings differ"
        return f"all is held out for evaluation; lower task.eval_fraction={self.eval_fraction:g}"

    def _owner(self, one: Said) -> Any:
        """What is in one split whole: a prompt, or a rater."""
        return one.answer.rater if self.held_out == "rater" else _question(one.item)

    def _hold_out(self, owners: Sequence[Any]) -> set[Any]:
        """Of the prompts or raters that make rows, those that are held out."""
        if not self.eval_fraction or not owners:
            return set()
        if len(owners) < 2:
            only = "of one rater" if self.held_out == "rater" else "to one prompt"
            raise UserError(
                f"task.held_out: there are answers {only} only, which cannot be split; "
                "task.eval_fraction=0 holds nothing out"
            )
        count = min(max(1, round(self.eval_fraction * len(owners))), len(owners) - 1)
        return set(random.Random(self.seed).sample(owners, count))

    def _rows(self, said: Sequence[Said]) -> Iterator[Row]:
        if self.kind == "comparisons":
            return (_preference(one) for one in said)
        if self.kind == "edits":
            return (_demonstration(one) for one in said)
        rows = _rewards if self.kind == "rewards" else _margins
        return chain.from_iterable(map(rows, _mean_ratings(said).values()))


class Rated(NamedTuple):
    """A response and the mean of its ratings."""

    item: Item  # the first that asked about it
    response: Response
    rating: float
    raters: tuple[str, ...]


def _check_choice(key: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise UserError(
            f"task.{key}: expected one of {', '.join(known)}, got '{value}'.{nearest(str(value), known)}"
        )


def _question(item: Item) -> tuple[Any, ...]:
    """What two items have in common that ask about the same prompt."""
    return item.prompt, *((one.get("role"), one.get("content")) for one in item.messages)


def _asked(item: Item) -> dict[str, Any]:
    """The columns of the item's task, and the prompt or conversation."""
    columns = {name: value for name, value in item.columns.items() if name not in OWN_COLUMNS}
    if item.messages:
        return {**columns, "messages": [dict(one) for one in item.messages]}
    return {**columns, "prompt": item.prompt}


def _shown(one: Said) -> list[str]:
    """The texts of the responses, as they were shown."""
    by_id = {response.id: response.text for response in one.item.responses}
    return [by_id[name] for name in one.answer.responses]


def _preference(one: Said) -> Row:
    shown = _shown(one)
    chosen, rejected = shown if one.answer.value == "a" else shown[::-1]
    return {**_asked(one.item), "chosen": chosen, "rejected": rejected, "rater": one.answer.rater}


def _demonstration(one: Said) -> Row:
    return {**_asked(one.item), "reference": one.answer.value, "rater": one.answer.rater}


def _mean_ratings(said: Sequence[Said]) -> dict[tuple[Any, ...], list[Rated]]:
    """Rated responses by prompt, in the order in which they were first rated."""
    about: dict[str, list[Said]] = {}
    for one in said:
        about.setdefault(one.answer.responses[0], []).append(one)
    found: dict[tuple[Any, ...], list[Rated]] = {}
    for name, ratings in about.items():
        item = ratings[0].item
        response = next(one for one in item.responses if one.id == name)
        mean = sum(float(one.answer.value) for one in ratings) / len(ratings)
        raters = tuple(dict.fromkeys(one.answer.rater for one in ratings))
        found.setdefault(_question(item), []).append(Rated(item, response, mean, raters))
    return found


def _rewards(rated: Sequence[Rated]) -> Iterator[Row]:
    for one in rated:
        row = {"reference": one.response.text, "reward": one.rating, "raters": list(one.raters)}
        yield {**_asked(one.item), **row}


def _margins(rated: Sequence[Rated]) -> Iterator[Row]:
    for one, other in combinations(rated, 2):
        better, worse = (one, other) if one.rating > other.rating else (other, one)
        if better.rating > worse.rating and better.response.text != worse.response.text:
            row = {
                "chosen": better.response.text,
                "rejected": worse.response.text,
                "margin": better.rating - worse.rating,
                "raters": list(dict.fromkeys([*one.raters, *other.raters])),
            }
            yield {**_asked(one.item), **row}
