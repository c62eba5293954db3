"""`feedtune feedback revise DIR judge=openai constitution=kind`: let a judge improve responses by principles.

Each response is criticised by a principle that is drawn, and written anew (Bai et al. 2022,
arXiv:2212.08073). The revision is kept as an edit, to learn from by algorithm=sft, and beside what it was
made from as a pair of which the judge says which is better, to learn from by algorithm=dpo or reward_model.
"""

from __future__ import annotations

from collections.abc import Sequence

from feedtune.commands.feedback.judged import asked, say, waiting
from feedtune.config.build import build
from feedtune.feedback.labelling import revise
from feedtune.judging import Constitution
from feedtune.text.visible import plain


def main(arguments: Sequence[str]) -> int:
    """Ask, keep, and say how much there is."""
    given = asked("revise", __doc__, arguments)
    constitution: Constitution = build(given.config.constitution, "constitution")
    with waiting("asking the judge") as status:
        found = revise(
            given.store,
            given.judge,
            constitution,
            given.options,
            lambda done: status.update(f"the judge has revised {done}"),
        )
    say(found, "revisions", given.judge.counts())
    print(plain(f"rater {given.judge.label}/{constitution.name} in {given.store.path}"))
    return 0
