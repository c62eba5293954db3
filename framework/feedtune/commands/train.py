"""`feedtune train [overrides]`: a Hydra application."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence

import hydra
from hydra._internal.utils import get_args_parser

from feedtune.commands import printing
from feedtune.commands.jobs import FailedJobsError, Job, ended_jobs, refuse_failed, summary
from feedtune.config import hydra_setup, sweeps
from feedtune.config.discovery import own_conf
from feedtune.config.hydra_errors import ComposeError, explained
from feedtune.config.hydra_section import check_flags, check_hydra_section
from feedtune.config.local_plugins import adopt
from feedtune.config.plugin_problems import warn
from feedtune.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Let Hydra read the arguments: overrides, --help, --cfg, --multirun and its other flags."""
    overrides = _overrides(arguments)
    flags = _without(overrides, arguments)
    overrides = adopt(overrides)
    warn(overrides)
    with explained(overrides):
        check_hydra_section(overrides)
    if {"-h", "--help"} & set(flags):
        from feedtune.commands.train_help import help_text

        print(help_text(overrides))
        return 0
    hydra_setup.register()
    if printing.is_asked(flags):
        return printing.main(flags, overrides)
    arguments = [*flags, *overrides]  # Hydra wants all overrides in one place
    given, sys.argv = sys.argv, [sys.argv[0], *arguments]
    job = Job(typed=overrides, command_line=[given[0], "train", *arguments])
    sweeps.taken()
    try:
        with explained(overrides):
            hydra.main(version_base="1.3", config_path=str(own_conf()), config_name="train")(job)()
    except ComposeError as error:
        from feedtune.runs.mistakes import of_the_rest

        raise UserError("\n".join([str(error), *of_the_rest(error.left)])) from error
    except Exception as error:  # a sweeper that has found no job complete
        _tell_of_jobs(error)
        raise
    finally:
        sys.argv = given
    if job.errors:
        raise job.errors[0]
    _tell_of_jobs()
    return 0


def _tell_of_jobs(error: Exception | None = None) -> None:
    """After a sweep: what its jobs have come to; those that failed are an error."""
    folder = sweeps.taken()
    jobs = ended_jobs(folder) if folder else []
    if folder and jobs:
        print(summary(jobs, folder))
        try:
            refuse_failed(jobs)
        except FailedJobsError as failed:
            raise failed from error


def _overrides(arguments: Sequence[str]) -> list[str]:
    """The arguments that are overrides; a flag that Hydra does not know is refused in one line."""
    for argument in arguments:
        if argument.encode(errors="replace").decode() != argument:
            raise UserError(f"{argument!r}: not UTF-8")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            given = get_args_parser().parse_intermixed_args(list(arguments))
    except SystemExit as end:
        if not end.code:
            raise
        mistake = said.getvalue().rpartition("error: ")[2].strip()
        raise UserError(f"{mistake}; see feedtune train --help") from None
    check_flags(given)
    return list(given.overrides)


def _without(some: Sequence[str], words: Sequence[str]) -> list[str]:
    left = list(words)
    for word in some:
        left.remove(word)
    return left
