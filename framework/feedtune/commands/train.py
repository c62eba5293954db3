"""`feedtune train [overrides]`: a Hydra application."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from feedtune.config import hydra_setup
from feedtune.config.discovery import own_conf
from feedtune.config.hydra_errors import explain, explained
from feedtune.config.hydra_section import check_flags, check_hydra_section
from feedtune.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Let Hydra read the arguments: overrides, --help, --cfg, --multirun and its other flags."""
    overrides = _overrides(arguments)
    with explained(overrides):
        check_hydra_section(overrides)
    flags = _without(overrides, arguments)
    if {"-h", "--help"} & set(flags):
        from feedtune.commands.train_help import help_text

        print(help_text(overrides))
        return 0
    arguments = [*flags, *overrides]  # Hydra wants all overrides in one place
    hydra_setup.register()
    given, sys.argv = sys.argv, [sys.argv[0], *arguments]
    command_line = [given[0], "train", *arguments]

    mistakes: list[UserError] = []
    failures: list[Exception] = []

    def run(config: DictConfig) -> float | None:
        # Lightning starts further processes with this very command line, so it must be whole again.
        sys.argv = command_line
        try:
            return _run(config)
        except UserError as mistake:  # Hydra would print its own lines before ours
            mistakes.append(UserError(f"{_which_job(overrides)}{mistake}"))
        except OmegaConfBaseException as mistake:
            mistakes.append(UserError(f"{_which_job(overrides)}{explain(mistake)}"))
        except Exception as failure:
            failures.append(failure)
        return None

    try:
        with explained(overrides):
            hydra.main(version_base="1.3", config_path=str(own_conf()), config_name="train")(run)()
    finally:
        sys.argv = given
    if failures:
        for mistake in mistakes:  # of other jobs of the sweep
            failures[0].add_note(str(mistake))
        raise failures[0]
    if mistakes:
        raise UserError("\n".join(dict.fromkeys(map(str, mistakes))))
    return 0


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


def _typed() -> list[str]:
    """The overrides of the job that is on, as they were typed: `${...}` in them is not looked up."""
    from hydra.core.hydra_config import HydraConfig

    lines: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [str(line) for line in lines]


def _which_job(overrides: Sequence[str]) -> str:
    """Of a sweep, the job that is on: what it alone was given, and its folder."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN:
        return ""
    parse = OverridesParser.create().parse_overrides
    swept = {one.key_or_group for one in parse(list(overrides)) if one.is_sweep_override()}
    task = _typed()
    own = [line for line, one in zip(task, parse(task), strict=True) if one.key_or_group in swept]
    return f"{' '.join([*own, f'({hydra_config.runtime.output_dir})'])}: "


def _run(config: DictConfig) -> float | None:
    from hydra.core.hydra_config import HydraConfig
    from lightning.pytorch.utilities import rank_zero_only

    from feedtune.runs.training import describe, train

    folder = Path(HydraConfig.get().runtime.output_dir)
    metrics = train(config, folder, typed=_typed())
    if getattr(rank_zero_only, "rank", 0) == 0:  # of several processes, one speaks
        print(describe(metrics))
        if not config.trainer.get("fast_dev_run", False):
            _finish(config, folder)
    return metrics.get("rollout/reward")


def _finish(config: DictConfig, folder: Path) -> None:
    """Write the report, if it can be drawn, and say what can be done next."""
    from feedtune.commands.report import report_line

    print(f"run folder: {folder}")
    if config.report:
        print(report_line([folder], folder / "report.html"))
    print(f'next: feedtune evaluate {folder}   or: feedtune generate {folder} "Hello"')
