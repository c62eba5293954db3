"""How the cost of feedtune's GRPO step grows: with responses, tokens, vocabulary, prompts and epochs.

    python growth.py [--only responses,tokens,vocabulary,prompts,epochs] [--steps 4] [--work DIR]

responses   seconds a step for 16 to 128 responses of 64 tokens, a line through them and the log-log slope
tokens      seconds a step for 64 to 512 new tokens, 32 responses
vocabulary  activation memory for 4k, 32k and 150k tokens with the same rows: the process's peak less what it
            holds after its first step, when weights, reference, optimiser state and gradients are all there
prompts     seconds from the start of Python to the first step and through it, for 100 and 10,000 prompts
epochs      memory after 50 and after 500 tiny epochs

Every measurement is a process of its own. The last line printed is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from fits import linear_fit
from processes import measure, note, run

RESPONSES = (16, 32, 64, 128)
TOKENS = (64, 128, 256, 512)
VOCABULARIES = (4_096, 32_000, 150_000)
PROMPTS = (100, 10_000)
EPOCHS = (50, 500)
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""glibc then returns freed tensors at once; kept ones would count as what is held after the first step."""

TINY = ("--responses", 8, "--group", 4, "--max-new", 4)

Found = dict[str, Any]


def make(work: Path, name: str, *options: object) -> Path:
    """A case of make_case.py, made once."""
    case = work / name
    if not (case / "prompts.jsonl").is_file():
        run("make_case.py", case, *options)
    return case


def short_case(work: Path) -> Path:
    """Prompts of 11 tokens; rows run to the limit."""
    return make(work, "short", "--prompt-tokens", 11, "--end-rate", 0)


def step_time(case: Path, steps: int, *options: object) -> float:
    """Median seconds of a step."""
    seconds: float = measure("feedtune_steps.py", case, "--steps", steps, *options)["median_step_seconds"]
    return seconds


def fitted(sizes: Sequence[int], seconds: Sequence[float]) -> Found:
    """Sizes, seconds and the line through them."""
    return {"sizes": list(sizes), "seconds": list(seconds), **linear_fit(sizes, seconds)}


def responses(work: Path, steps: int) -> Found:
    """Seconds a step against responses."""
    case = short_case(work)
    seconds = [step_time(case, steps, "--responses", count, "--max-new", 64) for count in RESPONSES]
    return fitted(RESPONSES, seconds)


def tokens(work: Path, steps: int) -> Found:
    """Seconds a step against new tokens."""
    case = short_case(work)
    seconds = [step_time(case, steps, "--responses", 32, "--max-new", length) for length in TOKENS]
    return fitted(TOKENS, seconds)


def vocabulary(work: Path, steps: int) -> Found:
    """Activation memory against vocabulary; `all_logits_gb` is what it would be at once."""
    rows, length, hidden = 32, 64, 32
    activations, logits = [], []
    for size in VOCABULARIES:
        sizes = ("--words", size, "--hidden", hidden, "--layers", 2, "--prompt-tokens", 16)
        case = make(work, f"words{size}", *sizes)
        batch = ("--responses", rows, "--max-new", length)
        found = measure("feedtune_steps.py", case, "--steps", max(2, steps), *batch, variables=GIVE_BACK)
        activations.append(round(found["peak_rss_gb"] - found["first_step_rss_gb"], 3))
        logits.append(round(rows * length * size * 4 / 1e9, 3))
    return {
        "sizes": list(VOCABULARIES),
        "activation_gb": activations,
        "all_logits_gb": logits,
        "weights_gb": [round(size * hidden * 4 / 1e9, 3) for size in VOCABULARIES],
    }


def prompts(work: Path, steps: int) -> Found:
    """Seconds until training starts against prompts; median of three processes each."""
    until_start, until_end = [], []
    for count in PROMPTS:
        options = ("--prompts", count, "--prompt-tokens", 32, "--end-rate", 0)
        case = make(work, f"prompts{count}", *options)
        found = [measure("feedtune_steps.py", case, "--steps", 1, *TINY) for _ in range(3)]
        until_start.append(round(median(one["start_seconds"] for one in found), 2))
        until_end.append(round(median(one["first_step_end_seconds"] for one in found), 2))
    ratio = round(until_end[1] / until_end[0], 3)
    return {
        "sizes": list(PROMPTS),
        "start_seconds": until_start,
        "first_step_end_seconds": until_end,
        "ratio": ratio,
    }


def epochs(work: Path, steps: int) -> Found:
    """Memory after 50 and after 500 epochs of one small run."""
    case = make(work, "tiny", "--hidden", 64, "--layers", 1, "--prompt-tokens", 8, "--end-rate", 0)
    found = measure("feedtune_steps.py", case, "--steps", EPOCHS[-1], *TINY)
    gigabytes = [found["rss_gb"][epoch - 1] for epoch in EPOCHS]
    grown = round(1e3 * (gigabytes[1] - gigabytes[0]), 1)
    return {"sizes": list(EPOCHS), "rss_gb": gigabytes, "growth_mb": grown}


PARTS: dict[str, Callable[[Path, int], Found]] = {
    "responses": responses,
    "tokens": tokens,
    "vocabulary": vocabulary,
    "prompts": prompts,
    "epochs": epochs,
}


def grow(work: Path, steps: int, only: Sequence[str] = tuple(PARTS)) -> dict[str, Found]:
    """Measure these parts, with cases made in the folder `work`."""
    found = {}
    for name in only:
        note(f"growth: {name}")
        found[name] = PARTS[name](work, steps)
        note(f"growth: {name}: {json.dumps(found[name])}")
    return found


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between (default: all)")
    parser.add_argument("--steps", type=int, default=4, help="steps of a process, the first to warm up (4)")
    parser.add_argument("--work", type=Path, help="folder for the cases; kept (default: a temporary one)")
    args = parser.parse_args()
    only = args.only.split(",")
    if unknown := set(only) - PARTS.keys():
        parser.error(f"--only: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(grow(args.work or Path(folder), args.steps, only)))


if __name__ == "__main__":
    main()
