"""`feedtune feedback serve DIR...`: a web page on which people compare, rate and edit what runs say.

DIR is a run folder, whose policy answers prompts of the first one's task, or a JSONL file of items: a prompt
with `responses`, `response`, or `chosen` and `rejected`. Without any, what the store holds is asked.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from omegaconf import DictConfig

from feedtune.commands.arguments import TRUST_HELP, Arguments
from feedtune.commands.feedback.questions import add_questions
from feedtune.commands.feedback.settings import EPILOG, settings_of, split, store_of
from feedtune.config.build import build
from feedtune.config.compose import to_plain
from feedtune.contracts import RewardSource
from feedtune.errors import UserError
from feedtune.feedback.asking.disagreement import Disagreement
from feedtune.feedback.options import FeedbackOptions
from feedtune.feedback.storage.store import FeedbackStore
from feedtune.feedback.web.addresses import LOOPBACK, listening, url_of
from feedtune.feedback.web.serving import make_server
from feedtune.text.visible import plain


def main(arguments: Sequence[str]) -> int:
    """Serve until Ctrl-C."""
    parser = Arguments(prog="feedtune feedback serve", description=__doc__, epilog=EPILOG)
    parser.add_argument("places", metavar="DIR", nargs="*", type=Path, help="run folders, files of items")
    parser.add_argument("--trust", action="store_true", help=TRUST_HELP)
    words, overrides = split(arguments)
    given = parser.read(words)
    config = settings_of(overrides)
    options = FeedbackOptions(**to_plain(config.feedback))
    worth = _worth(config, options)
    store = store_of(config, given.places[0] if given.places else None)
    with listening(options.host, options.port) as taken:  # first: else questions are added that nobody asks
        new = add_questions(store, given.places, config, given.trust)
        server = make_server(
            store,
            worth=worth,
            overlap=options.overlap,
            requests_a_minute=options.requests_a_minute,
            hosts=(*LOOPBACK, options.host, *options.hosts),
            secure=options.https,
        )
        _say(store, new, url_of(taken), options)
        with suppress(KeyboardInterrupt):  # which is how it ends
            server.run(sockets=[taken])
    return 0


def _worth(config: DictConfig, options: FeedbackOptions) -> Disagreement | None:
    reward: RewardSource | None = build(config.reward, "reward")
    if options.choose == "disagreement":
        if reward is None:
            raise UserError(
                "feedback.choose: disagreement is between a reward's parts; name one by reward=..."
            )
        return Disagreement(reward)
    if reward is not None:
        raise UserError("reward: only feedback.choose=disagreement has a use for it here; leave it out")
    return None


def _say(store: FeedbackStore, new: int, url: str, options: FeedbackOptions) -> None:
    """Where the page is and how to get in; a first login where there is none yet."""
    print(plain(f"{new} new items; {len(store.items())} in {store.path}"))
    if any(one.role == "admin" for one in store.accounts()):
        print(f"the page: {url}")
    else:
        pseudonym, token = store.add_account("admin")
        print(f"the page, with a login as {pseudonym} that is shown this once: {url}/login#{token}")
    print(plain(f"logins: feedtune feedback account {store.path} --new rater (or admin); Ctrl-C ends"))
    if options.host not in LOOPBACK:
        print(
            f"feedback.host={options.host}: others can reach the page, over plain HTTP; put a server that "
            "speaks HTTPS before it, and set feedback.https=true",
            file=sys.stderr,
        )
    sys.stdout.flush()
