"""What Lightning's trainer cannot be asked for here."""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from feedtune.errors import UserError


def check_trainer(config: DictConfig) -> None:
    """Refuse at once what Lightning would refuse late, or take for a run that has nothing to do."""
    for name, endless in {"max_epochs": "trainer.max_steps or max_time", "max_steps": "max_epochs"}.items():
        if config.get(name) == 0:
            raise UserError(
                f"trainer.{name}: expected at least 1, or -1 for as long as {endless} allows, got 0: "
                "nothing would be trained"
            )
    if config.get("precision") in ("bf16-true", "16-true"):
        mixed = config.precision.replace("true", "mixed")
        raise UserError(
            f"trainer.precision={config.precision}: weights, and what an algorithm counts from rollout to "
            f"rollout, would be rounded to 16 bits; {mixed} computes in 16 bits and keeps them in 32"
        )
    if config.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError(
            f"trainer.accelerator={config.accelerator} (as trainer=gpu has it): no GPU is to be seen here; "
            "choose trainer=cpu"
        )
