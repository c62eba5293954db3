"""What both sides of a timing share: options, the clock, memory and the reward. Standard library alone.

trl_steps.py and feedtune_steps.py run in environments of their own and measure by this module, so that a
second and a gigabyte are the same thing on both sides.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = resource.getpagesize()
BETA, LEARNING_RATE, CLIP, BETAS, LORA_ALPHA = 0.04, 1e-5, 0.2, (0.9, 0.999), 8.0
"""KL coefficient, step size, clipping range, AdamW's decays and LoRA's scale of both sides."""


def resident_gb() -> float:
    """Memory of this process at this moment, in units of 1e9 bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e9


def peak_gb() -> float:
    """The most memory this process has had (ru_maxrss), in units of 1e9 bytes.

    A new process inherits the peak of the one that starts it, so whoever starts it must be small.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


class Clock:
    """Told when training starts, when an optimiser step has ended and when training ends."""

    def __init__(self) -> None:
        self.born = time.perf_counter()  # this module is imported before everything heavy
        self.ends: list[float] = []
        self.resident: list[float] = []  # GB after each step
        self.start_seconds = self.start_gb = self.peak = 0.0

    def start(self) -> None:
        """Model, reference and data are there; no step has been taken."""
        self.start_seconds = time.perf_counter() - self.born
        self.start_gb = resident_gb()

    def tick(self) -> None:
        """An optimiser step has ended."""
        self.ends.append(time.perf_counter())
        self.resident.append(resident_gb())

    def stop(self) -> None:
        """Training has ended; what is saved afterwards does not count."""
        self.peak = peak_gb()

    def report(self, lengths: Sequence[float]) -> str:
        """One line of JSON; seconds a step leave out the first step, which warms up.

        Args:
            lengths: mean tokens of a response, step by step.
        """
        seconds = [later - earlier for earlier, later in zip(self.ends, self.ends[1:], strict=False)]
        found: dict[str, Any] = {
            "median_step_seconds": round(statistics.median(seconds), 4) if seconds else None,
            "step_seconds": [round(s, 4) for s in seconds],
            "mean_length": round(statistics.mean(lengths), 1),
            "peak_rss_gb": round(self.peak, 3),
            "start_rss_gb": round(self.start_gb, 3),
            "first_step_rss_gb": round(self.resident[0], 3),
            "rss_gb": [round(gb, 4) for gb in self.resident],
            "start_seconds": round(self.start_seconds, 2),
            "first_step_end_seconds": round(self.ends[0] - self.born, 2),
        }
        return json.dumps(found)


CLOCK = Clock()


def share_of_e(texts: Sequence[str]) -> list[float]:
    """The reward: which share of a response's characters is the letter "e"."""
    return [text.count("e") / max(1, len(text)) for text in texts]


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that both sides have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "case", type=Path, help="a folder with model/ and prompts.jsonl, as make_case.py makes it"
    )
    made.add_argument("--max-new", type=int, default=128, help="longest response in tokens (default: 128)")
    made.add_argument("--responses", type=int, default=64, help="responses a step, over all prompts (64)")
    made.add_argument("--group", type=int, default=8, help="responses to each prompt (8)")
    made.add_argument("--steps", type=int, default=6, help="optimiser steps, the first for warming up (6)")
    made.add_argument(
        "--bf16", action="store_true", help="autocast to bf16; with --lora the weights are bf16 too"
    )
    made.add_argument("--lora", type=int, default=0, help="LoRA rank; 0 trains all weights (default)")
    return made
