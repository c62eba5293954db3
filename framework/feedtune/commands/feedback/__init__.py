"""`feedtune feedback SUBCOMMAND`: ask people, judges and logs; keep what they say; hand it on."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from feedtune.errors import UserError, nearest

SUBCOMMANDS = {
    "serve": ("serve", "a web page on which people compare, rate and edit responses: serve DIR..."),
    "simulate": ("simulate", "raters who go by a reward, in place of people: simulate DIR reward=sentiment"),
    "label": ("label", "let a judge answer what people are asked: label DIR judge=openai"),
    "revise": ("revise", "let a judge improve responses by principles: revise DIR judge=openai"),
    "log": ("log", "take in events such as clicks from JSON lines: log DIR FILE.jsonl"),
    "clicks": ("clicks", "let a run serve simulated users and log their clicks: clicks DIR"),
    "estimate": ("estimate", "value a run by another one's log: estimate DIR feedback.path=LOG"),
    "export": ("exporting", "write answers as JSON lines: export DIR OUT"),
    "import": ("importing", "read answers from JSON lines: import DIR FILE.jsonl"),
    "raters": ("raters", "list who has answered, and how often: raters DIR"),
    "forget": ("forget", "delete everything of one rater: forget DIR RATER"),
    "account": ("account", "make a login, list them, or end one: account DIR --new rater"),
    "key": ("key", "print a fresh key for an encrypted store: export FEEDBACK_KEY=$(feedtune feedback key)"),
}
"""Of each subcommand its module in this package and one line for `--help`."""


SERVING = ("serve", "simulate")
"""Those that serve the page, whatever their settings."""


def usage() -> str:
    """What `feedtune feedback --help` prints."""
    rows = "\n".join(f"  {name:<9} {text}" for name, (_, text) in SUBCOMMANDS.items())
    return (
        "usage: feedtune feedback SUBCOMMAND [arguments] [overrides]\n\n"
        "Feedback from people, judges and logs, kept in one file (by default DIR/feedback.sqlite).\n\n"
        f"{rows}\n\n"
        "Settings are overrides of conf/feedback.yaml, such as feedback.path=FILE or feedback.key=VARIABLE.\n"
        "feedtune feedback SUBCOMMAND --help says more. Documentation: docs/feedback.md"
    )


def main(arguments: Sequence[str]) -> int:
    """Run a subcommand; returns its exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    module = importlib.import_module(f"{__name__}.{module_of(arguments)}")
    if not {"-h", "--help"} & set(arguments):
        check_installed(arguments)
    return int(module.main(arguments[1:]))


def check_installed(arguments: Sequence[str]) -> None:
    """Refuse a subcommand whose packages are lacking, before it has done anything.

    Raises:
        UserError: naming the extra that brings them.
    """
    if arguments[0] in SERVING:
        from feedtune.feedback.web.serving import require_server

        require_server(f"feedtune feedback {arguments[0]}")


def module_of(arguments: Sequence[str]) -> str:
    """The module in this package of the subcommand that arguments begin with.

    >>> module_of(["export", "runs/a"])
    'exporting'

    Raises:
        UserError: there is no such subcommand.
    """
    name, known = arguments[0] if arguments else "", ", ".join(SUBCOMMANDS)
    if name not in SUBCOMMANDS:
        raise UserError(f"feedback: no subcommand '{name}'.{nearest(name, SUBCOMMANDS)} It has: {known}")
    return SUBCOMMANDS[name][0]
