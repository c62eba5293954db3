"""Time feedtune's GRPO steps on a case of make_case.py; the last line printed is a JSON object.

    python feedtune_steps.py CASE_DIR [--max-new 128] [--responses 64] [--group 8] [--bf16] [--lora 8]
    python feedtune_steps.py CASE_DIR --override backbone.attn_implementation=eager   # to try something out

Runs the command `feedtune train algorithm=grpo backbone=hf ...` in this process, with a callback that keeps
the time and with trl_steps.py's settings in feedtune's words: the same model, prompts, reward, batch, KL,
clipping, optimiser and precision. As there, --bf16 with --lora has bf16 weights under autocast (the adapter's
own are float32 on both sides, peft's default), and without --lora float32 weights under autocast. metrics.csv
and samples.jsonl are written, as trl keeps its log; checkpoints and other loggers are off.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from measuring import BETA, BETAS, CLIP, CLOCK, LEARNING_RATE, LORA_ALPHA, parser, share_of_e

os.environ["HF_HUB_OFFLINE"] = "1"

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


def reward(responses: list[str]) -> list[float]:
    """The share of the letter "e", as feedtune calls it."""
    return share_of_e(responses)


class Ticking(Callback):
    """Tells the clock what Lightning's trainer does."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """The model, its reference and the rows are loaded."""
        CLOCK.start()

    def on_train_batch_end(self, trainer: Trainer, *args: object, **kwargs: object) -> None:
        """A part of an optimiser step has ended, perhaps the last."""
        if trainer.global_step > len(CLOCK.ends):
            CLOCK.tick()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """The export is written after this."""
        CLOCK.stop()


def overrides(args: argparse.Namespace, folder: Path) -> list[str]:
    """trl_steps.py's settings in feedtune's words; a rollout is an epoch and has one optimiser step."""
    parts = min(args.parts, args.responses // args.group)  # groups are never split
    adapter = [f"backbone.lora={{rank: {args.lora}, alpha: {LORA_ALPHA}, target_modules: all-linear}}"]
    return [
        "algorithm=grpo",
        "buffer=epochs",
        "buffer.passes=1",
        f"buffer.minibatches={parts}",
        f"trainer.accumulate_grad_batches={parts}",
        f"algorithm.kl.coefficient={BETA}",
        f"algorithm.surrogate.low={CLIP}",
        f"algorithm.surrogate.high={CLIP}",
        "backbone=hf",
        f"backbone.name={args.case / 'model'}",
        f"backbone.dtype={'bfloat16' if args.bf16 and args.lora else 'float32'}",
        *(adapter if args.lora else []),
        "task=jsonl",
        f"task.path={args.case / 'prompts.jsonl'}",
        "task.eval_fraction=0",
        "reward=function",
        f"reward.path={Path(__file__)}:reward",
        f"collector.responses={args.responses}",
        f"collector.group_size={args.group}",
        f"collector.max_new_tokens={args.max_new}",
        "optimizer=adamw",
        f"optimizer.lr={LEARNING_RATE}",
        f"optimizer.betas=[{BETAS[0]}, {BETAS[1]}]",
        f"trainer.precision={'bf16-mixed' if args.bf16 else '32-true'}",
        f"trainer.max_epochs={args.steps}",
        *quiet(folder),
        *args.override,
    ]


def quiet(folder: Path) -> list[str]:
    """No checkpoints, report or bar; the clock among the callbacks."""
    return [
        "~checkpoint",
        "report=false",
        "callbacks=quiet",
        f"+callbacks.clock._target_={Path(__file__).stem}.Ticking",
        f"trust=[{Path(__file__).stem}]",
        f"hydra.run.dir={folder}",
    ]


def mean_lengths(folder: Path) -> list[float]:
    """Mean tokens of a response, epoch by epoch."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["rollout/length"]) for row in csv.DictReader(file)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Train for a few steps and print what they took."""
    options = parser(__doc__)
    options.add_argument(
        "--parts", type=int, default=4, help="parts of an optimiser step, at most one a group (4)"
    )
    options.add_argument("--override", action="append", default=[], help="a further override; any number")
    args = options.parse_args(arguments)
    args.case = args.case.resolve()
    from feedtune.cli import main as feedtune

    with tempfile.TemporaryDirectory() as folder:
        status = feedtune(["train", *overrides(args, Path(folder) / "run")])
        if status:
            return status
        print(CLOCK.report(mean_lengths(Path(folder) / "run")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
