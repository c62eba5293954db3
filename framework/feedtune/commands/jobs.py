"""What Hydra runs for `feedtune train`: one job, or those of a sweep, in whichever process its launcher has.

A job of a sweep that fails stops no other. What became of each is a line of `jobs.jsonl` in the sweep's
folder, where jobs of other processes and machines write too; the command reads it when all have ended.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from feedtune.cli import quieten
from feedtune.config.hydra_errors import explain
from feedtune.config.plugin_problems import refuse_choices
from feedtune.config.secrets import redacted
from feedtune.config.sweeps import JOBS
from feedtune.errors import UserError


class FailedJobsError(UserError):
    """Jobs of a sweep that failed, a line each.

    Args:
        message: the lines.
        code: what the command exits with: 1 where one failure was no mistake of the user's, else 2.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Job:
    """The function that Hydra calls with each composed config.

    Args:
        typed: the overrides of the command line.
        command_line: all of it: Lightning starts further processes with it.
        errors: of the one job, where there is no sweep. Hydra would print lines of its own before them.
    """

    typed: Sequence[str]
    command_line: Sequence[str]
    errors: list[Exception] = field(default_factory=list)

    def __call__(self, config: DictConfig) -> float | None:
        """Train; what a sweep is to compare, or None."""
        from feedtune.commands.one_run import run

        sys.argv = list(self.command_line)
        quieten()  # a process of its own, perhaps
        value = None
        error: Exception | None = None
        try:
            refuse_choices(HydraConfig.get().runtime.choices)
            value = run(config, typed_here(), optimising=is_optimising())
        except OmegaConfBaseException as mistake:
            error = UserError(explain(mistake))
        except Exception as failure:
            error = failure
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            self._note(config, value, error)
        elif error is not None:
            self.errors.append(error)
        return value

    def _note(self, config: DictConfig, value: float | None, error: Exception | None) -> None:
        """Add this job's line."""
        hydra_config = HydraConfig.get()
        line = {
            "job": self.own_overrides(),
            "folder": hydra_config.runtime.output_dir,
            "metric": config.get("optimized_metric"),
            "value": value,
            **_said(error),
        }
        with (Path(hydra_config.sweep.dir) / JOBS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def own_overrides(self) -> str:
        """What this job of a sweep was given, and not all of them."""
        parse = OverridesParser.create().parse_overrides
        common = {one.key_or_group for one in parse(list(self.typed)) if not one.is_sweep_override()}
        here = typed_here()
        own = [line for line, one in zip(here, parse(here), strict=True) if one.key_or_group not in common]
        return " ".join(own)


def _said(error: Exception | None) -> dict[str, Any]:
    """What the command line will say of a job's error, and whether the user can mend it."""
    if error is None:
        return {"error": None}
    if isinstance(error, UserError):
        return {"error": redacted(str(error)), "mendable": True}
    from feedtune.runs.failures import described

    return {"error": redacted(described(error)), "mendable": False}


def typed_here() -> list[str]:
    """The overrides of the job that is on, as they were typed: `${...}` in them is not looked up."""
    lines: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return [str(line) for line in lines]


def is_optimising() -> bool:
    """Whether a sweeper such as Optuna's looks at what the job returns; a grid does not."""
    hydra_config = HydraConfig.get()
    grid = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
    return bool(hydra_config.mode == RunMode.MULTIRUN and hydra_config.sweeper._target_ != grid)


def ended_jobs(folder: Path) -> list[dict[str, Any]]:
    """What became of each job of a sweep, in the order of their ends; half a line counts for nothing."""
    path = folder / JOBS
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def summary(jobs: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """The jobs of a sweep that ended well, a line each with what they return."""
    good = [job for job in jobs if job["error"] is None]
    values = [f"{job['metric']} {job['value']:.4g}  " if job["value"] is not None else "" for job in good]
    lines = [f"{value}{job['job']} ({job['folder']})" for value, job in zip(values, good, strict=True)]
    return "\n".join([f"sweep: {len(good)} of {len(jobs)} jobs are complete, see {folder / JOBS}", *lines])


def refuse_failed(jobs: Sequence[Mapping[str, Any]]) -> None:
    """Raise `FailedJobsError` if any has; one line each, with what it was given and its folder."""
    failed = [job for job in jobs if job["error"] is not None]
    if not failed:
        return
    lines = dict.fromkeys(f"{job['job']} ({job['folder']}): {job['error']}" for job in failed)
    count = f"{len(failed)} of {len(jobs)} jobs of the sweep failed"
    raise FailedJobsError("\n".join([*lines, count]), code=2 if all(job["mendable"] for job in failed) else 1)
