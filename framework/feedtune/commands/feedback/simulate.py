"""`feedtune feedback simulate DIR... reward=NAME`: raters who go by a hidden reward, in place of people.

DIR is a run folder, whose policy answers prompts of the first one's task, or a JSONL file of items, as for
`feedtune feedback serve`. Without any, what the store holds is asked. The page is served on a free port of
this machine, and the raters log in and answer there as people do. Called again it goes on: what has been
answered stays, and nothing is asked twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from feedtune.commands.arguments import TRUST_HELP, Arguments
from feedtune.commands.feedback.questions import add_questions
from feedtune.commands.feedback.settings import EPILOG, settings_of, split, store_of
from feedtune.config.build import build
from feedtune.config.compose import to_plain
from feedtune.contracts import RewardSource
from feedtune.errors import UserError
from feedtune.feedback.options import FeedbackOptions
from feedtune.feedback.raters.simulated import SimulatedRater
from feedtune.feedback.raters.simulation import SimulateOptions, answer_in_turn
from feedtune.feedback.results.agreement import agreement
from feedtune.feedback.storage.store import FeedbackStore
from feedtune.feedback.web.serving import serve_in_thread
from feedtune.text.visible import plain


def main(arguments: Sequence[str]) -> int:
    """Let the raters answer, and say how far they agree."""
    parser = Arguments(prog="feedtune feedback simulate", description=__doc__, epilog=EPILOG)
    parser.add_argument("places", metavar="DIR", nargs="*", type=Path, help="run folders, files of items")
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)
    words, overrides = split(arguments)
    given = parser.read(words)
    config = settings_of(overrides)
    options, simulate = (
        FeedbackOptions(**to_plain(config.feedback)),
        SimulateOptions(**to_plain(config.simulate)),
    )
    hidden = _hidden(config)
    store = store_of(config, given.places[0] if given.places else None)
    if given.places or not simulate.wait:  # questions may also come from a run that has just begun
        add_questions(store, given.places, config, given.trust)
    lacking = simulate.answers - _count(store, simulate)
    if lacking > 0:
        _answer(store, hidden, simulate, options, config.seed, lacking)
    _say(store, simulate)
    return 0


def _hidden(config: DictConfig) -> RewardSource:
    hidden: RewardSource | None = build(config.reward, "reward")
    if hidden is None:
        raise UserError(
            "reward: simulated raters go by a hidden reward; choose one, such as reward=sentiment"
        )
    return hidden


def _count(store: FeedbackStore, options: SimulateOptions) -> int:
    """Answers of simulated raters that are there already."""
    return sum(one.by == "simulated" for one in store.answers([options.kind]))


def _answer(
    store: FeedbackStore,
    hidden: RewardSource,
    simulate: SimulateOptions,
    options: FeedbackOptions,
    seed: int,
    lacking: int,
) -> None:
    names = [f"simulated-{number}" for number in range(1, simulate.raters + 1)]
    raters = {
        store.add_account("rater", pseudonym=name)[1]: SimulatedRater(name, hidden, simulate.habits, seed)
        for name in names
    }
    console = Console(stderr=True)
    try:
        with (
            serve_in_thread(store, overlap=options.overlap, requests_a_minute=None) as url,
            console.status(f"answering at {url}") as status,
        ):
            answer_in_turn(
                url,
                raters,
                lacking,
                kind=simulate.kind,
                wait=simulate.wait,
                columns=lambda item: store.item(item).columns,
                on_answer=lambda done: status.update(f"{done} of {lacking} answers at {url}"),
            )
    finally:
        for name in names:  # nobody has their tokens any more
            store.revoke(name)


def _say(store: FeedbackStore, options: SimulateOptions) -> None:
    count = _count(store, options)
    print(f"{count} {options.kind}s by simulated raters, of {len(store.items())} items")
    if count < options.answers:
        print(f"no more, though simulate.answers={options.answers}: nothing is left to ask")
    shared = agreement([one for one in store.answers() if one.by == "simulated"], options.kind)
    if shared.units:
        print(
            f"on {shared.units} that several of them answered they agree in {shared.percent:.0f} % "
            f"(Krippendorff's alpha {shared.alpha:.2f})"
        )
    print(plain(f"store: {store.path}"))
