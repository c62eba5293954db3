"""The benchmark's JSON as Markdown. Standard library alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Found = dict[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table.

    >>> print(table(["a", "b"], [[1, 2]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines)


def markdown(found: Found) -> str:
    """Everything that has been measured so far."""
    writers = {"cases": _cases, "growth": _growth, "recurrent": _recurrent}
    parts = [_environment(found), *(write(found[name]) for name, write in writers.items() if name in found)]
    return "\n\n".join(parts) + "\n"


def _environment(found: Found) -> str:
    machine = found["machine"]
    lines = [
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"bf16 instructions: {'yes' if machine['bf16_instructions'] else 'no'}; "
        f"{machine['system']}, Python {machine['python']}; load before the start {machine['load_before']}."
    ]
    for side in ("feedtune", "trl"):
        if versions := found.get(f"{side}_environment"):
            lines.append(f"{side}'s side: {', '.join(f'{name} {said}' for name, said in versions.items())}.")
    return "\n".join(lines)


def _cases(cases: Found) -> str:
    head = ["case", "trl s", "feedtune s", "time ratio", "target"]
    head += ["trl GB", "feedtune GB", "memory ratio", "target"]
    head += ["beyond start, GB: trl, feedtune", "tokens a response: trl, feedtune", "steps"]
    text = table(head, map(_case, cases.values()))
    floors = [_floor(case["title"], case["floor"]) for case in cases.values() if "floor" in case]
    return "\n\n".join([text, *floors])


def _case(case: Found) -> list[object]:
    theirs, ours = case["trl"], case["feedtune"]
    steps = f"{theirs['steps']}, {ours['steps']}{'' if case['enough_steps'] else ' (too few)'}"
    return [
        case["title"],
        _span(theirs),
        _span(ours),
        _against(case["time_ratio"], case["time_target"]),
        f"{case['time_target']:.2f}",
        f"{theirs['peak_gb']:.2f}",
        f"{ours['peak_gb']:.2f}",
        _against(case["memory_ratio"], case["memory_target"]),
        f"{case['memory_target']:.2f}",
        f"{theirs['beyond_start_gb']:.2f}, {ours['beyond_start_gb']:.2f}",
        f"{theirs['mean_length']}, {ours['mean_length']}",
        steps,
    ]


def _span(side: Found) -> str:
    return f"{side['step_seconds']:.2f} ({side['fastest']:.2f} to {side['slowest']:.2f})"


def _against(ratio: float, target: float) -> str:
    """A ratio, marked where it misses its target."""
    return f"{ratio:.3f}" if ratio <= target else f"{ratio:.3f} (missed)"


def _floor(title: str, floor: Found) -> str:
    named = {name.removesuffix("_gflops"): rate for name, rate in floor.items() if name.endswith("_gflops")}
    rates = ", ".join(f"{name.replace('_', ' ')} {rate}" for name, rate in named.items())
    return (
        f"Floor of {title}: {floor['step_gflop']} GFLOP a step; GFLOP/s measured: {rates}. "
        f"At the fp32 rate {floor['floor_seconds']:.3f} s, which is {floor['share']:.0%} of feedtune's step "
        f"(target {floor['target']:.0%})."
    )


def _growth(growth: Found) -> str:
    head = ["growth", "at", "measured", "what it says"]
    return table(head, [[name, _joined(part["sizes"]), *_grown(name, part)] for name, part in growth.items()])


def _grown(name: str, part: Found) -> list[str]:
    if name == "vocabulary":
        said = f"all logits at once would be {_joined(part['all_logits_gb'])} GB"
        return [f"activations {_joined(part['activation_gb'])} GB", said]
    if name == "prompts":
        start = f"{_joined(part['start_seconds'])} s to the first step"
        end = f"{_joined(part['first_step_end_seconds'])} s through it"
        return [f"{start}, {end}", f"ratio {part['ratio']}"]
    if name == "epochs":
        return [f"{_joined(part['rss_gb'])} GB", f"{part['growth_mb']} MB more"]
    line = f"R² {part['r2']:.4f}, log-log slope {part['loglog_slope']:.2f}"
    return [f"{_joined(part['seconds'])} s", line]


def _joined(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _recurrent(found: Found) -> str:
    head = ["backbone", "weights", "tokens sampled a second"]
    names = ("transformer", "lstm")
    rows = [[name, found[f"{name}_weights"], found[f"{name}_tokens_per_second"]] for name in names]
    said = f"LSTM over transformer: {found['lstm_over_transformer']:.2f} (target: at least 1)."
    return f"{table(head, rows)}\n\n{said}"
