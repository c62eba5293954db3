"""Changes the formulas one small step at a time and sees whether their tests notice.

    python tests/mutation.py [FILES AND FOLDERS...] [--jobs N] [--list]

Every change that no test sees is printed as `file:line: before -> after`. Exit status 1: there are changes
that `mutation_check/equivalents.py` does not know, or an entry of that list is wrong: it names no change, or
one that a test sees.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from mutation_check.equivalents import EQUIVALENTS
from mutation_check.operators import Mutant, mutants
from mutation_check.runner import STOPPED, Outcome, Runner

ROOT = Path(__file__).parents[1]
FUNCTIONAL, PLUGINS = "tests/framework/functional", "tests/plugins/algorithms"
SHORT = f"{FUNCTIONAL}/test_survivors_experience.py"
READING = ["tests/framework/test_reading.py", "tests/framework/test_shared_prompts.py"]
SCORING = "tests/framework/test_scoring.py"
PREFERENCES = [f"{PLUGINS}/test_{name}.py" for name in ("direct_preference", "reward_modelling")]
TESTS = {
    "framework/feedtune/functional": [FUNCTIONAL],
    "framework/feedtune/reading.py": [SHORT, *READING, SCORING],
    "framework/feedtune/scoring.py": [SHORT, SCORING, *READING, *PREFERENCES],
    "framework/feedtune/experience.py": [
        SHORT,
        "tests/framework/test_experience.py",
        f"{PLUGINS}/test_laws.py",
    ],
    "framework/feedtune/preference_metrics.py": ["tests/framework/test_preference_metrics.py"],
    "framework/feedtune/completion.py": ["tests/framework/test_completion.py", f"{PLUGINS}/test_laws.py"],
    "plugins/feedtune_plugins/algorithms": [PLUGINS],
}
"""Who concerns themselves with a file or folder: a mutant meets those of these tests that run its lines."""

BORING = ("__init__.py", "checks.py")


def tests_of(file: Path) -> list[str]:
    name = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else str(file)
    return next((tests for prefix, tests in TESTS.items() if name.startswith(prefix)), [])


def files_of(chosen: list[str]) -> list[Path]:
    """The files that are meant; by default all that hold formulas."""
    paths = [Path(one).resolve() for one in chosen] or [ROOT / one for one in TESTS]
    files = [file for path in paths for file in (sorted(path.glob("*.py")) if path.is_dir() else [path])]
    return [file for file in files if file.name not in BORING]


def run(found: list[Mutant], tests: list[str], jobs: int, budget: float) -> Runner:
    """Each mutant against the tests; tells of each file when it is through."""
    total, done, killed = Counter(one.file for one in found), Counter[Path](), Counter[Path]()

    def concerns(mutant: Mutant, item: pytest.Item) -> bool:
        return bool(tests) or any(item.path.is_relative_to(ROOT / test) for test in tests_of(mutant.file))

    def say(outcome: Outcome) -> None:
        file = outcome.mutant.file
        done[file] += 1
        killed[file] += outcome.killed_by is not None
        if done[file] == total[file]:
            print(f"{name_of(file)}: {total[file]} mutants, {killed[file]} killed", flush=True)

    runner = Runner(found, concerns, jobs, budget, say)
    options = ["-c", str(ROOT / "pyproject.toml"), "-s", "-p", "no:cacheprovider", "-p", "no:terminal"]
    chosen = tests or sorted({str(ROOT / test) for one in total for test in tests_of(one)})
    pytest.main([*options, *chosen], plugins=[runner])
    return runner


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else file.name


def report(runner: Runner) -> bool:
    """Print what survived and what the list has wrong; whether all is well."""
    well = bool(runner.outcomes)
    for name in runner.failed:
        print(f"left out, it fails without any change: {name}")
    survivors = [one for one in runner.outcomes if one.killed_by is None]
    unknown = [one for one in survivors if not is_known(one.mutant)]
    for one in sorted(unknown, key=lambda one: (one.mutant.file, one.mutant.line)):
        mutant, seen = one.mutant, f"{one.tests} tests came by" if one.tests else "no test comes by"
        place = f"{name_of(mutant.file)}:{mutant.line}"
        print(f"{place}: {mutant.before} -> {mutant.after}    [{mutant.function}; {seen}]")
    wrong = wrong_entries(runner.outcomes)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    known = len(survivors) - len(unknown)
    stopped = sum(one.killed_by == STOPPED for one in runner.outcomes)
    print(f"{len(runner.outcomes)} mutants, {len(runner.outcomes) - len(survivors)} killed", end=" ")
    print(f"({stopped} by {STOPPED})", end=", ")
    print(f"{known} equivalent, {len(unknown)} survived")
    return well and not unknown and not wrong


def is_known(mutant: Mutant) -> bool:
    """Whether the list says that no test can see it."""
    return mutant.key in EQUIVALENTS.get(name_of(mutant.file), {})


def wrong_entries(outcomes: list[Outcome]) -> list[str]:
    """Entries of the list, for the files that were changed, that name no change or one that is seen."""
    fates = {(name_of(one.mutant.file), *one.mutant.key): one.killed_by for one in outcomes}
    found = []
    for file in sorted({name_of(one.mutant.file) for one in outcomes}):
        for function, change in EQUIVALENTS.get(file, {}):
            fate = fates.get((file, function, change), "")
            if fate is not None and fate != STOPPED:  # a busy machine says nothing of a change
                why = f"killed by {fate}" if fate else "there is no such change"
                found.append(f"equivalents.py: {file}, {function}: {change}: {why}")
    return found


def main(arguments: list[str]) -> int:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the jobs are the parallelism
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", help="files or folders; by default all that hold formulas")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--list", action="store_true", help="print the changes and run nothing")
    parser.add_argument("--tests", nargs="+", help="instead of those of the table in this file")
    parser.add_argument("--budget", type=float, default=30, help="most seconds of tests for one change")
    chosen = parser.parse_args(arguments)
    files = files_of(chosen.files)
    found = [one for file in files for one in mutants(file)]
    if chosen.list:
        for one in found:
            print(f"{name_of(one.file)}:{one.line}: {one.before} -> {one.after}")
        print(f"{len(found)} mutants")
        return 0
    return 0 if report(run(found, chosen.tests or [], chosen.jobs, chosen.budget)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
