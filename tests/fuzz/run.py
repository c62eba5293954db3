"""`python tests/fuzz/run.py --minutes 2`: random command lines, rows and checkpoints, and what came of them.

Prints how many cases of each kind were tried and how they ended. Failures are printed as small as they could
be made, with exit code 1: each is a bug. The same `--seed` draws the same cases from the same code.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

import torch

if __name__ == "__main__":  # pytest has it so anyway
    sys.path.insert(0, str(Path(__file__).parents[1]))
    os.environ["HF_HUB_OFFLINE"] = "1"

from fuzz import checkpoints, configs, rows
from fuzz.tallies import Tally, fuzz, smallest

SHARES = {"configs": 0.6, "rows": 0.25, "checkpoints": 0.15}
"""Of the time."""


def main() -> int:
    """Fuzz for as long as was asked; 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="for how long (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="which cases (default 0)")
    parser.add_argument("--only", choices=sorted(SHARES), help="one kind")
    given = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    for kind, share in SHARES.items():
        if given.only in (None, kind):
            seconds = given.minutes * 60 * (1 if given.only else share)
            with tempfile.TemporaryDirectory() as folder:
                failed += _fuzz(kind, Path(folder), seconds, given.seed)
    return int(failed > 0)


def _fuzz(kind: str, folder: Path, seconds: float, number: int) -> int:
    """Try cases of a kind until the time has passed; returns how many failed."""
    end = time.monotonic() + seconds
    place = {"configs": configs.Place, "rows": rows.Place, "checkpoints": checkpoints.Place}[kind](folder)
    cases = {"configs": configs.cases, "rows": lambda: rows.cases(30), "checkpoints": checkpoints.cases}[
        kind
    ]()
    examples = {"configs": 10, "rows": 200, "checkpoints": 50}[kind]
    tally = Tally(kind)
    while time.monotonic() < end:
        tally.add(fuzz(kind, cases, place.trial, examples=examples, number=number))
        number += 1
    print(tally.line(), flush=True)
    for case, happened in tally.failures[:20]:
        if kind == "configs":
            case = smallest(case, case.index(configs.KEPT) + 1, place.trial)
            print(f"  feedtune train {shlex.join(one for one in case if one != configs.KEPT)}")
        else:
            print(f"  {case!r}")
        print(f"    {happened}")
    return len(tally.failures)


if __name__ == "__main__":
    sys.exit(main())
