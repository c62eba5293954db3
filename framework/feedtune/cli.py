"""The command `feedtune`: finds the command's module, and turns what users can mend into one message.

Modules are imported when their command is called: `feedtune --help` needs no torch.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

COMMANDS = {
    "quickstart": "pretrain a small model, tune it by PPO, evaluate it: a few minutes on a laptop",
    "train": "train as the overrides say: feedtune train algorithm=ppo reward=sentiment",
    "pipeline": "several stages, each going on from the one before: feedtune pipeline pipeline=quickstart",
    "resume": "go on with a run that was stopped: feedtune resume DIR",
    "evaluate": "measure a run on held-out rows: feedtune evaluate DIR [overrides]",
    "generate": 'let a run speak: feedtune generate DIR "text", or a chat without text',
    "export": "the tuned model as one transformers folder: feedtune export DIR OUT",
    "report": "write report.html for one or several runs: feedtune report DIR...",
    "feedback": "ask people, judges and logs what is good: feedtune feedback --help",
    "plugins": "list every option, the distribution it comes from, and what is wrong with plugins",
    "check": "certify plugins against the laws of their kind: feedtune check acme",
    "new-plugin": "write a plugin project of your own: feedtune new-plugin acme --kind reward",
}

OUR_MISTAKE, USER_MISTAKE = 1, 2  # exit codes


def usage() -> str:
    """What `feedtune --help` prints."""
    rows = "\n".join(f"  {name:<11} {text}" for name, text in COMMANDS.items())
    return (
        "usage: feedtune COMMAND [arguments]\n\n"
        "Tunes language models with feedback by reinforcement learning.\n\n"
        f"{rows}\n\nfeedtune COMMAND --help says more. Documentation: README.md and docs/"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0; 1 for an error of ours, 2 for a mistake that the user can mend, 130 after Ctrl-C and 143 after SIGTERM.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        return 0
    if given[0] == "--version":
        from importlib.metadata import version

        print(f"feedtune {version('feedtune')}")
        return 0
    name, rest = given[0], given[1:]
    if name not in COMMANDS:
        from feedtune.errors import nearest

        return _say(
            f"unknown command '{name}'.{nearest(name, COMMANDS)} Commands: {', '.join(COMMANDS)}",
            USER_MISTAKE,
        )
    return _run(name, rest)


def _run(name: str, arguments: Sequence[str]) -> int:
    from feedtune.standard_error import unbreakable

    with unbreakable():
        return _called(name, arguments)


def _called(name: str, arguments: Sequence[str]) -> int:
    from feedtune.errors import Interrupted, UserError

    # Hydra would print its own message and exit with 1; so it hands the exception to us.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    quieten()
    _bound_caches()
    try:
        with _sigterm_as_exception():
            command = importlib.import_module(f"feedtune.commands.{name.replace('-', '_')}")
            return int(command.main(arguments))
    except UserError as error:
        return _say(str(error), getattr(error, "code", USER_MISTAKE))  # of a sweep, what its jobs ended with
    except Interrupted as stop:
        return _say(str(stop), stop.code)
    except SystemExit as end:  # --help, and what stops Hydra before a job
        return _say(end.code, USER_MISTAKE) if isinstance(end.code, str) else int(end.code or 0)
    except BrokenPipeError:  # the reader has seen enough, as in `feedtune train --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _say("interrupted", 128 + signal.SIGINT)
    except Exception as error:
        from feedtune.runs.failures import described

        return _say(described(error), OUR_MISTAKE)


@contextmanager
def _sigterm_as_exception() -> Iterator[None]:
    """Inside, SIGTERM ends the command as Ctrl-C does, with words; a second one without."""
    former = signal.getsignal(signal.SIGTERM)
    if former is not signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield  # somebody else listens already, or nobody may
        return
    signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _terminated(number: int, frame: object) -> None:
    from feedtune.errors import Interrupted

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Interrupted("stopped by SIGTERM", code=128 + number)


def _say(message: str, code: int) -> int:
    if message:
        print(f"feedtune: {_readable(message)}", file=sys.stderr)
    return code


def _readable(message: str) -> str:
    """What a message quotes of data, files and other programs, without secrets and escape sequences."""
    from feedtune.config.secrets import redacted
    from feedtune.text.visible import plain

    return plain(redacted(message))


def quieten() -> None:
    """Third-party advice that the user of a command can do nothing about."""
    import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for name in ("lightning.pytorch.utilities.rank_zero", "httpx"):  # httpx: a line for each request
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\..*")


def _bound_caches() -> None:
    """Bound the code that oneDNN (a CPU's bfloat16) keeps compiled, one piece for every shape of a product.

    Rollouts have ever new shapes, so that at the defaults of 1024 pieces a run grows for hundreds of steps;
    a model's own shapes, which come again with each layer, are far fewer. Read by torch when it first
    multiplies; whoever sets them keeps their own.
    """
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "128")


if __name__ == "__main__":
    sys.exit(main())
