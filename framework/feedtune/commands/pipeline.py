"""`feedtune pipeline [overrides]`: stages in a row, each an ordinary command."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from feedtune.commands import evaluate, resume, train
from feedtune.commands.report import report_line
from feedtune.config.compose import compose_config, to_plain
from feedtune.config.types import fits, wrong_type
from feedtune.errors import UserError, nearest
from feedtune.runs.training import LAST

STAGES = ("train", "evaluate")
"""Commands that a stage can be."""

USAGE = """usage: feedtune pipeline [overrides]

Runs the stages of conf/pipeline/NAME.yaml, each in a folder of its own; finished stages are skipped and a
stopped one goes on.

  pipeline=NAME          which stages (default quickstart)
  dir=FOLDER             where to put the runs, or the folder of a pipeline to go on with
  stages.NAME.arguments  arguments of a stage, as its command takes them"""


def main(arguments: Sequence[str]) -> int:
    """Run every stage, then write one report over all."""
    if "--help" in arguments or "-h" in arguments:
        print(USAGE)
        return 0
    flags = [argument for argument in arguments if argument.startswith("-")]
    if flags:
        raise UserError(f"unrecognized arguments: {' '.join(flags)}; see feedtune pipeline --help")
    config = to_plain(compose_config(arguments, "pipeline"))
    for name, stage in config["stages"].items():
        _check_stage(name, stage)
    folder = Path(config["dir"])
    console = Console(stderr=True)
    began = time.perf_counter()
    for number, (name, stage) in enumerate(config["stages"].items(), 1):
        console.rule(f"{number}/{len(config['stages'])} {name}")
        console.print(
            f"feedtune {stage['command']} {' '.join(stage['arguments'])}", style="dim", highlight=False
        )
        _run_stage(stage, folder / name)
    minutes = (time.perf_counter() - began) / 60
    trained = [folder / name for name, stage in config["stages"].items() if stage["command"] == "train"]
    print(report_line(trained, folder / "report.html"))
    print(f"all stages: {minutes:.1f} minutes")
    return 0


def _check_stage(name: str, stage: Mapping[str, Any]) -> None:
    """Refuse what the last stage gets wrong before the first has run."""
    command, arguments = stage.get("command"), stage.get("arguments", [])
    if command not in STAGES:
        known = f"expected one of {', '.join(STAGES)}, got {command!r}.{nearest(str(command), STAGES)}"
        raise UserError(f"stages.{name}.command: {known}")
    if not fits(arguments, list[str]):
        raise UserError(wrong_type(f"stages.{name}.arguments", arguments, list[str]))
    try:
        if command == "train":
            compose_config(arguments)
    except UserError as error:
        raise UserError(f"stages.{name}: {error}") from error


def _run_stage(stage: Mapping[str, Any], folder: Path) -> None:
    if stage["command"] == "evaluate":
        evaluate.main(stage["arguments"])
    elif (folder / "export" / "feedtune.json").is_file():
        print(f"{folder}: complete already")
    elif (folder / LAST).is_file():
        resume.main([str(folder)])
    else:
        train.main([*stage["arguments"], f"hydra.run.dir={_quoted(folder)}", "report=false"])


def _quoted(folder: Path) -> str:
    """As Hydra reads a value whatever characters it has."""
    escaped = str(folder).replace("'", "\\'")
    return f"'{escaped}'"
