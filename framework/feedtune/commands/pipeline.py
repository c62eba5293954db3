"""`feedtune pipeline [overrides]`: stages in a row, each an ordinary command."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from feedtune.checkpoints import listed
from feedtune.commands import evaluate, export, feedback, report, resume, train
from feedtune.commands.report import report_line
from feedtune.commands.stages import problems_of
from feedtune.config.compose import compose_config, to_plain
from feedtune.config.local_plugins import adopt, quoted
from feedtune.config.plugin_problems import warn
from feedtune.config.types import fits
from feedtune.errors import Interrupted, UserError
from feedtune.text.visible import plain

USAGE = """usage: feedtune pipeline [overrides]

Runs the stages of conf/pipeline/NAME.yaml, each in a folder of its own; finished stages are skipped and a
stopped one goes on.

  pipeline=NAME          which stages (default quickstart)
  dir=FOLDER             where to put the runs, or the folder of a pipeline to go on with
  stages.NAME.arguments  arguments of a stage, as its command takes them
  plugins_path=FOLDER    a folder of your own plugins, for the stages too
  --dry-run              say what each stage would do, and what is wrong with any, and do nothing
  --trust                run code that the folders of a stopped pipeline name, beside what the stages say"""


def main(arguments: Sequence[str]) -> int:
    """Run every stage, then write one report over all."""
    if "--help" in arguments or "-h" in arguments:
        print(USAGE)
        return 0
    trusting, dry = "--trust" in arguments, "--dry-run" in arguments
    arguments = [argument for argument in arguments if argument not in ("--trust", "--dry-run")]
    flags = [argument for argument in arguments if argument.startswith("-")]
    if flags:
        raise UserError(f"unrecognized arguments: {' '.join(flags)}; see feedtune pipeline --help")
    arguments = adopt(arguments)
    warn()
    config = to_plain(compose_config(arguments, "pipeline"))
    _pass_on(config["plugins_path"], config["stages"])
    folder = Path(config["dir"])
    problems = problems_of(config["stages"], folder)
    if problems:
        raise UserError("\n".join(problems))
    if dry:
        _say_what_would_be(config["stages"], folder)
        return 0
    console = Console(stderr=True)
    began = time.perf_counter()
    for number, (name, stage) in enumerate(config["stages"].items(), 1):
        console.rule(Text(plain(f"{number}/{len(config['stages'])} {name}")))
        line = plain(f"feedtune {stage['command']} {' '.join(stage.get('arguments', []))}")
        console.print(line, style="dim", highlight=False, markup=False, emoji=False)
        with _all_go_on_with(arguments, folder):
            _run_stage(stage, folder / name, trusting)
    minutes = (time.perf_counter() - began) / 60
    trained = [folder / name for name, stage in config["stages"].items() if stage["command"] == "train"]
    if trained:
        print(report_line(trained, folder / "report.html"))
    print(f"all stages: {minutes:.1f} minutes")
    return 0


@contextmanager
def _all_go_on_with(arguments: Sequence[str], folder: Path) -> Iterator[None]:
    """A stage that a signal has ended says how it goes on; here, how all of them do."""
    try:
        yield
    except Interrupted as stop:
        named = any(one.startswith("dir=") for one in arguments)
        again = [*arguments, *([] if named else [f"dir={quoted(folder)}"])]
        line = f"all stages go on with: feedtune pipeline {shlex.join(again)}"
        raise Interrupted(f"{stop}\n{line}", code=stop.code) from None


def _pass_on(plugins_path: str | None, stages: Mapping[str, dict[str, Any]]) -> None:
    """Let the stages that compose a config know the folder of plugins, unless they name one of their own."""
    if plugins_path is None:
        return
    given = f"plugins_path={quoted(plugins_path)}"
    for stage in stages.values():
        arguments = stage.get("arguments", []) if isinstance(stage, dict) else None
        if (
            arguments is None
            or stage.get("command") not in ("train", "feedback")
            or not fits(arguments, list[str])
        ):
            continue
        if not any(one.lstrip("+").startswith("plugins_path=") for one in arguments):
            first = 1 if stage["command"] == "feedback" else 0  # after the name of the subcommand
            stage["arguments"] = [*arguments[:first], given, *arguments[first:]]


def _say_what_would_be(stages: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """For --dry-run: each stage's command, and whether it is done, goes on or begins."""
    for name, stage in stages.items():
        state = _state(stage, folder / name)
        line = shlex.join(["feedtune", stage["command"], *stage.get("arguments", [])])
        print(plain(f"{name} ({state}): {line}"))


def _state(stage: Mapping[str, Any], folder: Path) -> str:
    if stage["command"] == "export":
        out: Path = export.parser().read(stage["arguments"]).out
        return "complete" if any(out.glob("*")) else "to do"
    if stage["command"] != "train":
        return "to do"
    if (folder / "export" / "feedtune.json").is_file():
        return "complete"
    return "goes on" if listed(folder) else "to do"


def _run_stage(stage: Mapping[str, Any], folder: Path, trusting: bool) -> None:
    flags = ["--trust"] if trusting else []
    command, arguments, state = stage["command"], stage.get("arguments", []), _state(stage, folder)
    if state == "complete":
        made = export.parser().read(arguments).out if command == "export" else folder
        print(f"{made}: complete already")
    elif state == "goes on":
        resume.main([str(folder), *flags])
    elif command == "train":
        train.main([*arguments, f"hydra.run.dir={quoted(folder)}", "report=false"])
    elif command == "evaluate":
        evaluate.main([*arguments, *flags])
    elif command == "export":
        export.main([*arguments, *flags])
    elif command == "feedback":  # what is in its store is not asked again
        feedback.main([*arguments, *flags])
    else:
        report.main(arguments)
