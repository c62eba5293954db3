"""The command `feedtune`: finds the command's module, and turns what users can mend into one message.

Modules are imported when their command is called: `feedtune --help` needs no torch.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence

COMMANDS = {
    "quickstart": "pretrain a small model, tune it by PPO, evaluate it: a few minutes on a laptop",
    "train": "train as the overrides say: feedtune train algorithm=ppo reward=sentiment",
    "pipeline": "several stages, each going on from the one before: feedtune pipeline pipeline=quickstart",
    "resume": "go on with a run that was stopped: feedtune resume DIR",
    "evaluate": "measure a run on held-out rows: feedtune evaluate DIR [overrides]",
    "generate": 'let a run speak: feedtune generate DIR "text", or a chat without text',
    "export": "the tuned model as one transformers folder: feedtune export DIR OUT",
    "report": "write report.html for one or several runs: feedtune report DIR...",
    "plugins": "list every group, option and the distribution it comes from",
}

USER_MISTAKE = 2


def usage() -> str:
    """What `feedtune --help` prints."""
    rows = "\n".join(f"  {name:<11} {text}" for name, text in COMMANDS.items())
    return (
        "usage: feedtune COMMAND [arguments]\n\n"
        "Tunes language models with feedback by reinforcement learning.\n\n"
        f"{rows}\n\nfeedtune COMMAND --help says more. Documentation: README.md and docs/"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 for a mistake that the user can mend."""
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

        return _refuse(f"unknown command '{name}'.{nearest(name, COMMANDS)} Commands: {', '.join(COMMANDS)}")
    return _run(name, rest)


def _run(name: str, arguments: Sequence[str]) -> int:
    from feedtune.errors import Interrupted, UserError

    # Hydra would print its own message and exit with 1; so it hands the exception to us.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _quieten()
    _bound_caches()
    try:
        command = importlib.import_module(f"feedtune.commands.{name}")
        return int(command.main(arguments))
    except UserError as error:
        return _refuse(str(error))
    except SystemExit as end:  # --help, and what stops Hydra before a job
        return _refuse(end.code) if isinstance(end.code, str) else int(end.code or 0)
    except BrokenPipeError:  # the reader has seen enough, as in `feedtune train --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as end:
        print(f"feedtune: {end if isinstance(end, Interrupted) else 'interrupted'}", file=sys.stderr)
        return 130


def _refuse(message: str) -> int:
    print(
        "\n".join(f"feedtune: {line}" if i == 0 else line for i, line in enumerate(message.splitlines())),
        file=sys.stderr,
    )
    return USER_MISTAKE


def _quieten() -> None:
    """Third-party advice that the user of a command can do nothing about."""
    import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
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
