"""`feedtune feedback account DIR`: list who may log in; make a login, or end one."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from feedtune.commands.arguments import Arguments
from feedtune.commands.feedback.settings import opened
from feedtune.config.compose import to_plain
from feedtune.errors import UserError, nearest
from feedtune.feedback.options import FeedbackOptions
from feedtune.feedback.storage.store import FeedbackStore
from feedtune.text.visible import plain


def main(arguments: Sequence[str]) -> int:
    """List, make or end logins."""
    given = opened("account", __doc__, arguments, flags=_flags, must_exist=False, runs=False)
    words, store = given.words, given.store
    if words.new and words.revoke:
        raise UserError("--new and --revoke: one at a time")
    if words.new:
        pseudonym, token = store.add_account(words.new, words.name)
        options = FeedbackOptions(**to_plain(given.config.feedback))
        print(
            f"{pseudonym} logs in with the token below. It is shown this once; the store keeps only a hash."
        )
        print(token)
        print(plain(f"as a link, where the page is served with these settings: {options.url}/login#{token}"))
    elif words.revoke:
        _revoke(store.existing(), words.revoke)
    else:
        _list(store.existing())
    return 0


def _flags(parser: Arguments) -> None:
    parser.add_argument("--new", metavar="ROLE", help="make a login: rater, admin or logger (sends events)")
    parser.add_argument("--name", help="of whoever gets it, for the list; encrypted where texts are")
    parser.add_argument("--revoke", metavar="PSEUDONYM", help="end a login; the answers stay")


def _revoke(store: FeedbackStore, pseudonym: str) -> None:
    if not store.revoke(pseudonym):
        known = [one.pseudonym for one in store.accounts()]
        raise UserError(f"--revoke: there is no login '{pseudonym}'.{nearest(pseudonym, known)}")
    print(plain(f"{pseudonym}: the login has ended; the answers stay"))


def _list(store: FeedbackStore) -> None:
    table = Table("pseudonym", "role", "name", "since")
    for one in store.accounts():
        table.add_row(one.pseudonym, one.role, Text(plain(one.name or "")), one.time[:19])
    Console().print(table)
