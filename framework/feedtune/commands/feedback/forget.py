"""`feedtune feedback forget DIR RATER`: delete all that one rater has answered, and the login."""

from __future__ import annotations

from collections.abc import Sequence

from feedtune.commands.feedback.settings import opened
from feedtune.errors import UserError, nearest
from feedtune.text.visible import plain


def main(arguments: Sequence[str]) -> int:
    """Delete and say how much it was."""
    given = opened(
        "forget",
        __doc__,
        arguments,
        {"rater": "the pseudonym, as `feedtune feedback raters` has it"},
        runs=False,
    )
    rater = given.words.rater
    known = {one.rater for one in given.store.raters()} | {one.pseudonym for one in given.store.accounts()}
    if rater not in known:
        raise UserError(f"rater: {given.store.path} knows no '{rater}'.{nearest(rater, known)}")
    count = given.store.forget(rater)
    print(
        plain(
            f"{rater}: {count} answers and the login deleted; copies of the file and exports still have them"
        )
    )
    return 0
