"""What a GRPO step will cost: seconds from responses, lengths and weights, by two constants of the machine.

    python cost_model.py [--steps 4] [--work DIR]

    seconds = operations of the step (floor.py) / RATE  +  new tokens x layers x OVERHEAD

Operations grow with responses x (tokens of a response + a share of the prompt) x weights. The second term is
what a decoding step costs however few rows it has: calls, and weights read from memory for little work. Both
constants are fitted to steps that are measured here and tried on others; the last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path

from fits import two_costs
from floor import Shape, Work, prompt_length, step_flops
from growth import make, step_time
from processes import note
from tables import table

GROUP = 8


@dataclass(frozen=True)
class Point:
    """A step: the model's width (4 layers), and the rows."""

    hidden: int
    prompt: int
    responses: int
    new: int


FITTED = (
    Point(256, 11, 16, 64),
    Point(256, 11, 64, 64),
    Point(256, 11, 32, 256),
    Point(256, 128, 64, 64),
    Point(128, 11, 64, 64),
    Point(128, 128, 32, 128),
    Point(512, 11, 64, 64),
)
HELD_OUT = (Point(256, 11, 128, 64), Point(256, 128, 32, 256), Point(512, 128, 32, 64))


@dataclass(frozen=True)
class Measured:
    """A step's operations, its decoding steps times layers, and its seconds."""

    flops: int
    calls: int
    seconds: float


def measured(point: Point, work: Path, steps: int) -> Measured:
    """One process of feedtune_steps.py."""
    name = f"hidden{point.hidden}prompt{point.prompt}"
    options = ("--hidden", point.hidden, "--prompt-tokens", point.prompt, "--end-rate", 0)
    case = make(work, name, *options)
    shape = Shape.read(case / "model")
    rows = Work(point.responses // GROUP, GROUP, prompt_length(case), point.new)
    batch = ("--responses", point.responses, "--group", GROUP, "--max-new", point.new)
    seconds = step_time(case, steps, *batch)
    note(f"{point}: {seconds} s")
    return Measured(step_flops(shape, rows), point.new * shape.layers, seconds)


def main() -> None:
    """Measure, fit and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=4, help="steps of a process, the first to warm up (4)")
    parser.add_argument("--work", type=Path, help="folder for the cases; kept (default: a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        found = {point: measured(point, work, args.steps) for point in (*FITTED, *HELD_OUT)}
    fitted = [found[point] for point in FITTED]
    a, b = two_costs([m.flops for m in fitted], [m.calls for m in fitted], [m.seconds for m in fitted])
    rows = []
    for point, m in found.items():
        said = a * m.flops + b * m.calls
        how = "fitted" if point in FITTED else "held out"
        rows.append([*astuple(point), f"{m.flops / 1e9:.1f}", f"{m.seconds:.2f}", f"{said:.2f}", how])
    head = ["hidden", "prompt", "responses", "new tokens", "GFLOP", "seconds", "model says", "point"]
    print(table(head, rows))
    print(json.dumps({"gflops_a_second": 1e-9 / a, "overhead_ms": 1e3 * b, "rows": rows}))


if __name__ == "__main__":
    main()
