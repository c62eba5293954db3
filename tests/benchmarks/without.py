"""What each gain is worth: feedtune's steps on a case, without one of them at a time.

    python without.py CASE_DIR [--max-new 128] [--bf16] [...]     # prints a table and a JSON object

Takes feedtune_steps.py's options. Each gain is switched off by putting the plain way in its place, in a
process of its own, by turns with the whole; the table has medians of all steps but each process's first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import Any

from processes import measure, note
from tables import table

ROUNDS = 2


def one_part() -> None:
    """Rows are read side by side, padded to the longest."""
    from feedtune import reading

    reading.PART = 10**9


def whole_rows() -> None:
    """Each row of a group reads its prompt."""
    from feedtune import reading

    reading.shared_prompts = lambda exp: None


def plain_weights() -> None:
    """No packed weights, torch's attention."""
    from feedtune_plugins.backbones.causal_lm import CausalLM

    CausalLM.steady = lambda self: nullcontext()  # type: ignore[method-assign]


def concatenated_cache() -> None:
    """Every token copies the keys and values of all before it."""
    from transformers.cache_utils import DynamicLayer

    from feedtune_plugins.backbones.causal_lm import GrowingLayer

    grow = GrowingLayer.update

    def update(layer: Any, *states: Any, **options: Any) -> Any:
        return (DynamicLayer.update if layer.is_initialized else grow)(layer, *states, **options)

    GrowingLayer.update = update  # type: ignore[method-assign]


def leaving_at_once() -> None:
    """Rows leave the batch as soon as they are over."""
    from feedtune import sampling

    sampling.CROWD = 1 - 1e-9  # one row that is over is enough


def staying() -> None:
    """Rows that are over stay until the last is."""
    from feedtune import sampling

    sampling.CROWD = 0.0


GAINS: dict[str, Callable[[], None]] = {
    switch.__name__: switch
    for switch in (one_part, whole_rows, plain_weights, concatenated_cache, leaving_at_once, staying)
}
OPTIONS = {"parts_of_a_step": ["--parts", "1"]}
"""Gains that are options of feedtune_steps.py."""


def child(name: str, arguments: list[str]) -> int:
    """One process: the steps without a gain."""
    if name in GAINS:
        GAINS[name]()
    from feedtune_steps import main

    return main([*arguments, *OPTIONS.get(name, [])])


def parent(arguments: list[str]) -> int:
    """All gains by turns."""
    names = ["everything", *GAINS, *OPTIONS]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(ROUNDS):
        for name in names:
            found[name].append(measure("without.py", "--child", name, *arguments))
            note(f"round {number + 1}: {name} {found[name][-1]['median_step_seconds']} s")
    seconds = {name: median(s for one in found[name] for s in one["step_seconds"]) for name in names}
    peaks = {name: max(one["peak_rss_gb"] for one in found[name]) for name in names}
    rows = [[name, f"{seconds[name]:.2f}", f"{peaks[name]:.2f}"] for name in names]
    print(table(["without", "seconds a step", "peak GB"], rows))
    print(json.dumps({"seconds": seconds, "peak_gb": peaks}))
    return 0


if __name__ == "__main__":
    if "--help" in sys.argv or len(sys.argv) < 2:
        sys.exit(__doc__)
    if sys.argv[1] == "--child":
        sys.exit(child(sys.argv[2], sys.argv[3:]))
    sys.exit(parent(sys.argv[1:]))
