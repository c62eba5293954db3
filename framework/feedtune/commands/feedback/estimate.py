"""`feedtune feedback estimate DIR feedback.path=LOG`: what a run would earn in service, before it serves.

From a log of what another policy said, with which probability, and what it earned: the inverse-propensity
estimate, the same with bounded weights, and the self-normalized one, each with its standard error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from feedtune.commands.arguments import TRUST_HELP, Arguments
from feedtune.commands.feedback.in_service import Served, served
from feedtune.commands.feedback.settings import opened
from feedtune.config.compose import to_plain
from feedtune.errors import UserError
from feedtune.feedback.events.estimates import EstimateOptions, estimates
from feedtune.feedback.events.showings import Showing, join
from feedtune.functional import Estimate


def _flags(parser: Arguments) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON in place of a table")
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)


def main(arguments: Sequence[str]) -> int:
    """Print a table of estimates."""
    given = opened("estimate", __doc__, arguments, flags=_flags)
    if given.words.place is None:
        raise UserError("DIR: not given; name the run folder whose policy is to be valued")
    options = EstimateOptions(**to_plain(given.config.estimate))
    run = served(Path(given.words.place), given.words.trust)
    joined = join(given.store.items(), given.store.events(), options.window)
    showings = joined.showings if options.split is None else _of(options.split, run, joined.showings)
    found = estimates(run.loaded.policy, run.loaded.codec, showings, options)
    if given.words.json:
        print(json.dumps({name: _plain(one) for name, one in found.items()}))
        return 0
    Console().print(_table(found))
    print(
        f"{len(showings)} showings; left out: {joined.unknown} events of unknown responses, {joined.unshown} "
        f"before their response was shown, {joined.late} too late, {joined.young} showings too young"
    )
    return 0


def _of(split: str, run: Served, showings: Sequence[Showing]) -> list[Showing]:
    """Those that answer prompts of one split of the run's task."""
    prompts = {one.text for one in run.loaded.codec.prompts(run.task().load(split))}
    return [one for one in showings if one.prompt in prompts]


def _plain(estimate: Estimate) -> Mapping[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in asdict(estimate).items()}


def _table(found: Mapping[str, Estimate]) -> Table:
    table = Table("estimate", "a showing earns", "standard error", "effective showings")
    for name, one in found.items():
        table.add_row(name, f"{one.value:.4f}", f"{one.error:.4f}", f"{one.effective:.0f}")
    return table
