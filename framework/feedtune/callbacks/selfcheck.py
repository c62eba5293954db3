"""The selfcheck as the first thing that a run does."""

from __future__ import annotations

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from feedtune.module import TuningModule
from feedtune.policy import Policy
from feedtune.runs.export import load, save
from feedtune.selfcheck import probe_rows, selfcheck
from feedtune.text.codec import Codec


class SelfCheck(Callback):
    """Measures what training relies on before the first collection, also of a run that goes on.

    Args:
        codec: spells the task's rows, and is saved beside the policy.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Refuse to train where a law does not hold."""
        assert isinstance(module, TuningModule)
        backbone = module.policy.backbone
        rows = probe_rows(self.codec, module.rows, backbone.vocab_size, backbone.context_length)

        def save_and_load(folder: Path) -> Policy:
            return load(save(module.policy, self.codec, folder)).policy

        found = selfcheck(
            module.policy,
            rows,
            reference=module.reference if trainer.global_step == 0 else None,
            save_and_load=save_and_load,
            context=trainer.precision_plugin.forward_context,
        )
        if "drift" in found and trainer.is_global_zero:
            Console(stderr=True).print(
                f"selfcheck: in {trainer.precision} the sampler's log-probabilities are {found['drift']:.2g} "
                "nats a token off the trainer's; old ones are computed anew",
                highlight=False,
            )
