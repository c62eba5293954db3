"""`feedtune feedback clicks DIR`: let a run's policy serve simulated users, and log what they click on.

The run answers the prompts of its task with rankings; users of the position-biased click model see them; what
was shown, with its probability, and the clicks go into the store. The task's rows need the grade of each
document (clicks.column), as task=ranking has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from feedtune.commands.arguments import TRUST_HELP, Arguments
from feedtune.commands.feedback.in_service import served
from feedtune.commands.feedback.settings import opened
from feedtune.config.compose import to_plain
from feedtune.errors import UserError
from feedtune.feedback.events.clicking import serve
from feedtune.feedback.events.clicks import ClickOptions
from feedtune.text.visible import plain


def _flags(parser: Arguments) -> None:
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)


def main(arguments: Sequence[str]) -> int:
    """Serve, log, and say how often users clicked."""
    given = opened("clicks", __doc__, arguments, flags=_flags, must_exist=False)
    if given.words.place is None:
        raise UserError("DIR: not given; name the run folder whose policy is to serve")
    folder = Path(given.words.place)
    options = ClickOptions(**to_plain(given.config.clicks))
    options.users()  # refuses what is wrong with them before anything is loaded
    run = served(folder, given.words.trust)
    rows = run.task().load(options.split)
    if not rows:
        raise UserError(f"clicks.split: the task has no rows of '{options.split}'")
    log = serve(
        run.loaded.policy,
        run.loaded.codec,
        rows,
        options,
        max_new_tokens=run.config.evaluation.max_new_tokens,
        seed=given.config.seed,
        run=folder.resolve().name,
        checkpoint=run.checkpoint,
    )
    given.store.add(log.items)
    new = given.store.log(log.events)
    clicks = len(log.events) - log.shown
    left = f"; {log.unended} did not end, and were not shown" if log.unended else ""
    print(f"{log.shown} rankings shown, {clicks} clicks ({clicks / max(1, log.shown):.3f} a showing){left}")
    print(plain(f"{new} new events, {len(log.events) - new} known already; store: {given.store.path}"))
    return 0
