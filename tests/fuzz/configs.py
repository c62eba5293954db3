"""Random command lines of `feedtune train`: two steps, or a message of ours."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from hypothesis import strategies as st
from omegaconf import OmegaConf

from feedtune.cli import main
from feedtune.config.check import _hints
from feedtune.config.compose import compose_config
from feedtune.config.discovery import options_of
from feedtune.config.trust import resolve
from feedtune.runs.assembly import GROUPS
from fuzz.tallies import WrongError
from small_runs import PAIRS, SMALL, overrides, write_rows

NOT_HERE = {
    # what takes a network, a GPU, further processes, or ends this one by design
    ("backbone", "hf"),
    ("tokenizer", "pretrained"),
    ("task", "datasets"),
    ("trainer", "ddp"),
    ("logger", "wandb"),
    ("debug", "fault"),
    # what takes seconds to load
    ("task", "chitchat"),
    ("reward", "safety"),
    ("reward", "toxicity"),
}
LEFT_ALONE = {
    # what makes a run long, start processes, or write elsewhere, by design
    *("trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.devices", "run_dir"),
    *("trainer.num_nodes", "trainer.strategy", "task.path", "reward.path", "backbone.name"),
}
ROWS = [{**pair, "reference": pair["chosen"], "reward": n % 3} for n, pair in enumerate(PAIRS)]
"""What every algorithm can read."""

WRONG = (
    *(
        "abc",
        "''",
        "null",
        "true",
        "-3",
        "0",
        "1.5",
        "[]",
        "[1,a]",
        "{}",
        "{a: 1}",
        "nan",
        "inf",
        "-inf",
        "1e400",
    ),
    *("'${nothere}'", "'${seed}'", "'${oc.env:NOT_SET}'", "'???'", "ä", "'\\n'", "'[/b]'", "[[[]]]", "'a b'"),
    *(
        "{_target_: os.mkdir, path: canary}",
        "{_target_: feedtune.callbacks.Progress}",
        "{_target_: 3}",
        "'\x1b[1m'",
    ),
    *("'${'", "[null]", "{a: {b: null}}", "0x10", "1_000", "-0.0", "'1'", "1e-320", "3.0000000001"),
)
TYPED = "=+~@.{}[]$:,'\"\\ abcßé/()%#*\n\t-0"
"""What a finger may slip on."""


def cases() -> st.SearchStrategy[list[str]]:
    """Overrides: a tiny run, then options of groups, keys and slips at random."""
    return _cases()


KEPT = "--"
"""Ends what makes the run tiny; no case fails for that."""


@st.composite
def _cases(draw: st.DrawFn) -> list[str]:
    algorithm = draw(st.sampled_from(options_of("algorithm")))
    backbone = draw(st.sampled_from(sorted(SMALL)))
    base = overrides(Path("rows.jsonl"), backbone, algorithm, "report=false", "trainer.max_steps=2")
    options = draw(st.lists(st.sampled_from(_options()), max_size=2, unique=True))
    leaves = _leaves((*base, *options))
    keys = draw(st.lists(st.sampled_from(sorted(leaves)), max_size=3, unique=True))
    changed = [f"{key}={draw(_value(key, leaves[key]))}" for key in keys]
    slips = (
        draw(st.lists(st.text(TYPED, max_size=12).filter(_harmless), max_size=1)) if draw(_seldom()) else []
    )
    return [*base, KEPT, *options, *changed, *slips]


def _seldom() -> st.SearchStrategy[bool]:
    return st.integers(0, 7).map(lambda number: number == 5)


def _harmless(text: str) -> bool:
    """No flag, since `--help` is no run."""
    return not text.lstrip().startswith("-") and "hydra" not in text


@cache
def _options() -> list[str]:
    groups = [group for group in (*GROUPS, "experiment", "debug") if group not in ("backbone", "algorithm")]
    chosen = [(group, option) for group in groups for option in options_of(group)]
    return [f"{group}={option}" for group, option in chosen if (group, option) not in NOT_HERE]


@cache
def _leaves(chosen: tuple[str, ...]) -> dict[str, Any]:
    """Every key of the config that these give, with its value and the type that its owner wants."""
    try:
        plain = OmegaConf.to_container(compose_config(chosen), resolve=False)
    except Exception:  # the trial itself says whether that is well told
        plain = {"seed": 0}
    found: dict[str, Any] = {}
    _walk(plain, "", {}, found)
    return {key: value for key, value in found.items() if key not in LEFT_ALONE}


def _walk(node: Any, key: str, hints: dict[str, Any], found: dict[str, Any]) -> None:
    if not isinstance(node, dict):
        found[key] = (node, hints.get(key.rpartition(".")[2]))
        return
    own = _hints(resolve(node["_target_"], key)) if isinstance(node.get("_target_"), str) else {}
    for name, value in node.items():
        _walk(value, f"{key}.{name}" if key else str(name), own, found)


def _value(key: str, known: tuple[Any, Any]) -> st.SearchStrategy[str]:
    """Something that fits, twice as often as something that does not."""
    value, hint = known
    choices = [str(one) for one in get_args(hint)] if get_origin(hint) is Literal else []
    if choices:
        fitting = st.sampled_from(choices)
    elif isinstance(value, bool):
        fitting = st.sampled_from(["true", "false"])
    elif isinstance(value, int):
        fitting = st.sampled_from(["0", "1", "2", "3", "4", "5", "8", "16", "-1"])
    elif isinstance(value, float) or value is None:
        fitting = st.sampled_from(
            ["0", "1", "0.0", "0.1", "0.5", "0.99", "1.0", "2.0", "1e-8", "-1.0", "1e30", "null"]
        )
    else:
        fitting = st.sampled_from(["''", "a", "[]", "[a]", "'<eos>'", "reference", "rows.jsonl"])
    if key.endswith("seed"):
        fitting = st.integers(-1, 2**70).map(str)
    return st.one_of(fitting, fitting, st.sampled_from(WRONG))


class Place:
    """A folder in which one case after the other runs, with rows for every algorithm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_rows(folder, ROWS)
        self.known = set(folder.iterdir())

    def trial(self, case: list[str]) -> str:
        """Run a case in this process: "trained", or "refused" by a message.

        Raises:
            WrongError: it ended in another way.
        """
        typed = [one for one in case if one != KEPT]
        out, err = io.StringIO(), io.StringIO()
        before, scratch = Path.cwd(), tempfile.tempdir
        os.chdir(self.folder)
        tempfile.tempdir = str(self.folder)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                code = main(["train", "hydra.run.dir=run", *typed])
            self._check(code, err.getvalue())
            return "trained" if code == 0 else "refused"
        finally:
            os.chdir(before)
            tempfile.tempdir = scratch
            self._clear()

    def _check(self, code: int, said: str) -> None:
        if (self.folder / "canary").exists():
            raise WrongError("something was called that nobody trusts")
        if code == 0:
            return
        told = [line for line in said.splitlines() if line.startswith("feedtune: ")]
        if code != 2 or not told or "Traceback" in said:
            raise WrongError(f"exit code {code}: {said.strip()[-600:]}")

    def _clear(self) -> None:
        for path in set(self.folder.iterdir()) - self.known:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
