"""A small feedback store with answers of every kind."""

from __future__ import annotations

from pathlib import Path

from feedtune.feedback import Answer, FeedbackStore, Kind, item_of, response_of

SAID: dict[Kind, tuple[str | int, ...]] = {
    "comparison": ("a", "b"),
    "rating": (1, 5),
    "edit": ("No.", "Yes!"),
}


def every_kind(path: Path) -> FeedbackStore:
    """To ten prompts, by three raters who do not agree, of whom one is a judge."""
    store = FeedbackStore(path)
    prompts = [f"Question {n}?" for n in range(10)]
    items = [item_of(prompt, [response_of(prompt, text) for text in ("yes", "no")]) for prompt in prompts]
    store.add(items)
    store.answer_all(
        Answer(
            id=f"{rater} {kind} {n} {about}",
            item=item.id,
            kind=kind,
            responses=tuple(one.id for one in (item.responses if kind == "comparison" else [response])),
            value=values[(n + number) % 2],
            rater=rater,
            by="judge" if rater == "cat" else "person",
            time=f"2026-01-31T12:00:{n:02}Z",
            tags=("easy",) if n < 5 else ("hard",),
        )
        for kind, values in SAID.items()
        for n, item in enumerate(items)
        for number, rater in enumerate(("ann", "bob", "cat"))
        for about, response in enumerate(item.responses[:1] if kind == "comparison" else item.responses)
    )
    return store
