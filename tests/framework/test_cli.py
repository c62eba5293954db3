"""The command line as a whole: help, exit codes, and that mistakes are one line."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from feedtune import cli
from feedtune.cli import COMMANDS, main
from feedtune.commands import plugins
from feedtune.config.discovery import own_conf
from feedtune.errors import UserError


def test_help_names_every_command_and_is_quick() -> None:
    code = (
        "import sys; from feedtune.cli import main; main(['--help']);"
        "print({'torch', 'hydra', 'lightning', 'transformers'} & set(sys.modules))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert done.stdout.endswith("set()\n")  # none of the heavy ones was imported
    # Seconds of the processor, which a busy machine does not stretch.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_no_command_is_a_question(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("usage: feedtune COMMAND")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("feedtune 0.")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_its_own(name: str, feedtune: Any) -> None:
    said = feedtune(name, "--help")
    assert said.code == 0
    assert "feedtune" in said.out
    assert said.err == ""


def test_train_help_lists_every_group_option_and_value(feedtune: Any) -> None:
    said = feedtune("train", "--help")
    choices = said.out.partition("Groups and their options")[2].partition("Values (set with")[0]
    group, listed = "", dict[str, dict[str, str]]()
    for line in choices.splitlines()[2:]:
        if line.startswith("  "):
            option, _, text = line.strip().partition(" ")
            listed[group][option] = text.strip()
        elif line:
            group = line
            listed[group] = {}
    groups: dict[str, set[str]] = {}
    for file in own_conf().glob("*/*.yaml"):
        groups.setdefault(file.parent.name, set()).add(file.stem)
    assert len(groups) >= 15
    assert "pipeline" not in listed  # another command's
    for group in groups.keys() - {"pipeline"}:
        assert listed[group].keys() >= groups[group], group
    assert listed["reward"]["length"]
    assert listed["algorithm"]["sft"].startswith("imitation by maximum likelihood")
    assert "\noptimizer:\n" in said.out
    assert "\n  lr: 0.001\n" in said.out


def test_train_help_follows_the_choices(feedtune: Any) -> None:
    said = feedtune("train", "task=text", "--help")
    assert "\n  prompt_words: null\n" in said.out
    assert "feedtune train task=jsonl --help" in said.out
    assert feedtune("train", "task=txt", "--help").code == 2


def test_train_help_is_quick() -> None:
    code = (
        "import sys; from feedtune.cli import main; main(['train', '--help']);"
        "print({'torch', 'lightning', 'transformers'} & set(sys.modules))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.endswith("set()\n")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["unknown command 'trian'", "Did you mean 'train'?", "evaluate, generate"]),
        (["--frob"], ["unknown command '--frob'"]),
        (
            ["plugins", "--jsn"],
            ["--jsn: there is no such flag (did you mean '--json'?); see feedtune plugins --help"],
        ),
        (["check", "--help-me"], ["--help-me: there is no such flag (did you mean '--help'?); see feedtune"]),
        (["generate"], ["required: DIR"]),
        (["generate", "run", "hi", "--top-k", "x"], ["--top-k", "invalid int value: 'x'"]),
        (["resume"], ["required: DIR"]),
        (["evaluate", "run", "--frob"], ["--frob"]),
        (["pipeline", "--frob"], ["--frob", "feedtune pipeline --help"]),
        (["train", "--frob"], ["unrecognized arguments: --frob", "feedtune train --help"]),
        (["train", "--cfg", "nonsense"], ["--cfg", "'nonsense'"]),
    ],
    ids=" ".join,
)
def test_a_mistake_in_the_arguments_is_one_line(
    arguments: list[str], words: list[str], feedtune: Any
) -> None:
    said = feedtune(*arguments)
    assert said.code == 2
    assert said.err.startswith("feedtune: ")
    assert said.err.count("\n") == 1
    assert [word for word in words if word not in said.err] == []


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(plugins, "main", interrupted)
    assert main(["plugins"]) == 130
    assert capsys.readouterr().err == "feedtune: interrupted\n"


def test_sigterm_is_no_traceback_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The handler is there while a command runs and not after it."""
    monkeypatch.setattr(plugins, "main", lambda arguments: signal.raise_signal(signal.SIGTERM))
    assert main(["plugins"]) == 143
    assert capsys.readouterr().err == "feedtune: stopped by SIGTERM\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_caches_of_compiled_products_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At torch's own 1024 a run in bfloat16 grows with every new shape; a user's choice is kept."""
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7")
    assert cli.main(["plugins", "--no-such"]) == 2
    assert os.environ["LRU_CACHE_CAPACITY"] == "128"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "7"


def test_a_message_of_several_lines_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mistaken(arguments: object) -> int:
        raise UserError("one\ntwo")

    monkeypatch.setattr(plugins, "main", mistaken)
    assert main(["plugins"]) == cli.USER_MISTAKE == 2
    assert capsys.readouterr().err == "feedtune: one\ntwo\n"


@pytest.mark.parametrize(("code", "expected"), [(None, 0), (0, 0), (3, 3), ("because", 2)])
def test_whoever_exits_sets_the_code(
    code: int | str | None,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def exiting(arguments: object) -> int:
        raise SystemExit(code)

    monkeypatch.setattr(plugins, "main", exiting)
    assert main(["plugins"]) == expected
    assert capsys.readouterr().err == ("feedtune: because\n" if code == "because" else "")


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    pipe = f"{sys.executable} -m feedtune.cli plugins --json | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


def test_plugins_lists_the_options_of_conf(feedtune: Any) -> None:
    listed = json.loads(feedtune("plugins", "--json").out)
    assert listed["problems"] == []
    found = {(row["group"], row["option"]) for row in listed["options"] if row["distribution"] == "feedtune"}
    assert found == {(f.parent.name, f.stem) for f in own_conf().glob("*/*.yaml")}
    assert all(row["version"] for row in listed["options"])
    table = feedtune("plugins").out.splitlines()
    assert table[0].split() == ["group", "option", "class", "distribution", "version", "feedtune"]
    row = ["reward", "length", "feedtune_plugins.rewards.length.Length", "feedtune"]
    assert row in [line.split()[:4] for line in table]
