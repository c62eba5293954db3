"""What `label` and `revise` share: the judge that the config names, and what is said at the end."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.status import Status

from feedtune.commands.arguments import TRUST_HELP, Arguments
from feedtune.commands.feedback.questions import add_questions
from feedtune.commands.feedback.settings import EPILOG, settings_of, split, store_of
from feedtune.config.build import build
from feedtune.config.compose import to_plain
from feedtune.config.discovery import options_of
from feedtune.errors import UserError
from feedtune.feedback.labelling import Labelled, LabelOptions
from feedtune.feedback.storage.store import FeedbackStore
from feedtune.judging import Judge


@dataclass(frozen=True)
class Asked:
    """What a judge is to be asked."""

    judge: Judge
    config: DictConfig
    store: FeedbackStore
    options: LabelOptions


def asked(subcommand: str, description: str | None, arguments: Sequence[str]) -> Asked:
    """Read a subcommand's arguments, put what they name into the store, and build the judge.

    Raises:
        UserError: no judge is chosen, or there is nothing to ask about.
    """
    parser = Arguments(prog=f"feedtune feedback {subcommand}", description=description, epilog=EPILOG)
    parser.add_argument("places", metavar="DIR", nargs="*", type=Path, help="run folders, files of items")
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)
    words, overrides = split(arguments)
    given = parser.read(words)
    config = settings_of(overrides)
    store = store_of(config, given.places[0] if given.places else None)
    config.run_dir = str(store.path.parent)
    judge: Judge | None = build(config.judge, "judge")
    if judge is None:
        known = ", ".join(f"judge={name}" for name in options_of("judge"))
        raise UserError(f"judge: not given; choose who judges: {known}")
    options = LabelOptions(**to_plain(config.label))
    add_questions(store, given.places, config, given.trust)
    return Asked(judge, config, store, options)


def waiting(text: str) -> AbstractContextManager[Status]:
    """A spinner on standard error."""
    return Console(stderr=True).status(text)


def say(found: Labelled, what: str, counts: Mapping[str, float]) -> None:
    """How many answers there are now, and what the judge has counted."""
    print(f"{found.answers} {what}, {found.silent} without an answer, {found.known} known already")
    print(", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in counts.items() if known(value)))
    sys.stdout.flush()


def known(value: float) -> bool:
    """Whether there is anything to say.

    >>> known(0.5), known(float("nan"))
    (True, False)
    """
    return not math.isnan(value)
