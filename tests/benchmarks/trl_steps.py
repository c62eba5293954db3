"""Time trl's GRPO steps on a case of make_case.py; the last line printed is a JSON object.

    python trl_steps.py CASE_DIR [--max-new 128] [--responses 64] [--group 8] [--steps 6] [--bf16] [--lora 8]

CASE_DIR/model may be any transformers folder, CASE_DIR/prompts.jsonl any prompts. The reward is the share of
the letter "e" in the completion. Needs `pip install trl datasets peft`, in an environment of its own. --bf16
loads the weights in bf16 for LoRA and keeps float32 weights otherwise; both run under autocast.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

from measuring import BETA, BETAS, CLIP, CLOCK, LEARNING_RATE, LORA_ALPHA, parser, share_of_e

os.environ["HF_HUB_OFFLINE"] = "1"

from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def reward(completions: list[str], **_: object) -> list[float]:
    """The share of the letter "e", as trl calls it."""
    return share_of_e(completions)


class Ticking(TrainerCallback):  # type: ignore[misc,unused-ignore] # transformers has no types in every version
    """Tells the clock what trl's trainer does."""

    def on_train_begin(self, *args: object, **kwargs: object) -> None:
        """The model and its reference are loaded."""
        CLOCK.start()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        """An optimiser step has ended."""
        CLOCK.tick()

    def on_train_end(self, *args: object, **kwargs: object) -> None:
        """Nothing is saved after this."""
        CLOCK.stop()


def settings(args: Any, folder: str) -> Any:
    """trl's config: feedtune_steps.py says the same in feedtune's words."""
    return GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=args.responses,
        num_generations=args.group,
        max_completion_length=args.max_new,
        max_steps=args.steps,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        beta=BETA,
        epsilon=CLIP,
        loss_type="grpo",
        bf16=args.bf16,
        model_init_kwargs={"dtype": "bfloat16" if args.bf16 and args.lora else "float32"},
        gradient_checkpointing=False,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )


def adapter(rank: int) -> Any:
    """LoRA on all linear layers, or None to train all weights."""
    return LoraConfig(r=rank, lora_alpha=int(LORA_ALPHA), target_modules="all-linear") if rank else None


def main() -> None:
    """Train for a few steps and print what they took."""
    args = parser(__doc__).parse_args()
    rows = [json.loads(line) for line in (args.case / "prompts.jsonl").open()]
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=str(args.case / "model"),
            reward_funcs=reward,
            args=settings(args, folder),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(args.case / "model", padding_side="left"),
            callbacks=[Ticking()],
            peft_config=adapter(args.lora),
        )
        trainer.train()
    name = "completions/mean_length"
    print(CLOCK.report([row[name] for row in trainer.state.log_history if name in row]))


if __name__ == "__main__":
    main()
