"""The cases that both sides run, and the targets that their ratios are held against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A model with prompts, and the flags that trl_steps.py and feedtune_steps.py are both given."""

    name: str
    title: str
    make: tuple[object, ...]  # options of make_case.py
    flags: tuple[object, ...]  # options of both sides
    time: float  # target: feedtune's seconds over trl's, at most
    memory: float  # target: feedtune's peak over trl's, at most
    pretrained: bool = False  # whether the model is the folder given by --smollm2
    folder: str = ""  # where the case lies; cases may share one


RAGGED = ("--max-new", 128)
LORA = ("--max-new", 32, "--responses", 32, "--group", 4, "--bf16", "--lora", 8)
CASES = (
    Case("short", "short, fp32", ("--prompt-tokens", 11, "--end-rate", 0), ("--max-new", 64), 1 / 1.8, 0.6),
    Case("ragged", "ragged, fp32", (), RAGGED, 1 / 4, 0.4),
    Case("ragged-bf16", "ragged, bf16-mixed", (), (*RAGGED, "--bf16"), 1 / 4, 0.5, folder="ragged"),
    Case("smollm2", "SmolLM2-135M, LoRA, bf16", (), LORA, 1 / 2, 0.5, pretrained=True),
)
FLOOR_CASE, FLOOR_TARGET = "short", 0.5
