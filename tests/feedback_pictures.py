"""Draws the pictures of docs/feedback.md: the page over a few questions, answered by made-up raters.

Run `python tests/feedback_pictures.py`; it needs Debian's chromium, and takes ten seconds.
"""

from __future__ import annotations

import itertools
import math
import random
import sys
import tempfile
from pathlib import Path

from chromium import Page, chromium
from feedback_sites import feedback_site
from feedtune.feedback import Answer, FeedbackStore, Item, item_of, now, one_time_id, response_of

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"

SAID = {
    "How was your day?": (
        "It was good, thank you! I went for a walk by the river and read a little. And yours?",
        "good good. it was good, it was a good day",
        "Good! I had a walk.",
    ),
    "What should I cook tonight?": (
        "Pasta with tomatoes, basil and a bit of garlic: twenty minutes, one pot.",
        "i like to cook haha",
        "Soup is always nice.",
    ),
    "Can you recommend a book for a long train journey?": (
        "If you like slow stories, take a thick old novel; if not, a crime story does nicely.",
        "the train is long",
        "A crime story, I would say.",
    ),
    "Tell me something nice.": (
        "Somebody is going to be glad to see you today.",
        "nice nice",
        "You have a friendly way of asking.",
    ),
}
SKILL = {"ppo": 1.8, "pretrain": -1.6, "sft": 0.0}
WINDOWS = {"wide": (1000, 440), "phone": (390, 640)}
RESULTS = {"wide": (1000, 1480), "phone": (390, 640)}
DRAWN = {"wide": ("comparison",), "phone": ("comparison", "rating", "edit")}
READY = "document.querySelector('#question') && !document.querySelector('#question').hidden"


def items() -> list[Item]:
    """Every prompt with what three runs say to it."""
    return [
        item_of(prompt, [response_of(prompt, one, run=run) for one, run in zip(texts, SKILL, strict=True)])
        for prompt, texts in SAID.items()
    ]


def answer_all(store: FeedbackStore) -> None:
    """Two people and a judge compare everything, by Bradley-Terry over `SKILL`."""
    luck = random.Random(0)
    for rater, by in (("rater-5f0c", "person"), ("rater-9a41", "person"), ("judge-small", "judge")):
        for item in store.items():
            for pair in itertools.combinations(item.responses, 2):
                a, b = luck.sample(pair, 2)
                chance = 1 / (1 + math.exp(SKILL[str(b.run)] - SKILL[str(a.run)]))
                store.answer(
                    Answer(
                        id=one_time_id(),
                        item=item.id,
                        kind="comparison",
                        responses=(a.id, b.id),
                        value="a" if luck.random() < chance else "b",
                        rater=rater,
                        by=by,  # type: ignore[arg-type]
                        time=now(),
                    )
                )


def draw(page: Page, url: str, token: str, window: str, folder: Path) -> None:
    """The pages that are shown of one window."""
    page.go(f"{url}/login#{token}")
    page.until(f"location.pathname === '/' && {READY}")
    for kind in DRAWN[window]:
        page.go(f"{url}/?kind={kind}")
        page.until(READY)
        page.picture(folder / f"feedback-{kind}-{window}.png")
    width, height = RESULTS[window]
    page.sized(width, height, phone=window == "phone")
    page.go(f"{url}/results")
    page.picture(folder / f"feedback-results-{window}.png")


def main(folder: Path) -> None:
    """Draw all pictures into a folder."""
    with (
        tempfile.TemporaryDirectory() as place,
        feedback_site(Path(place), items()) as site,
        chromium(Path(place) / "profile") as browser,
    ):
        answer_all(site.store)
        token = site.store.add_account("admin")[1]
        for window, size in WINDOWS.items():
            page = browser.page()
            page.sized(*size, phone=window == "phone")
            draw(page, site.url, token, window, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
