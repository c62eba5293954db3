"""TensorBoard: the run's facts beside its curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

MEASURED = ("rollout/reward", "eval/reward", "policy/kl")
"""Curves that stand beside the facts in the tab HPARAMS, where a run has them."""


class RunTensorBoard(TensorBoardLogger):
    """Event files of a run.

    Lightning would write a curve of its own for the tab HPARAMS; here the tab shows curves that there are.
    """

    @rank_zero_only
    def log_hyperparams(  # type: ignore[override]
        self, params: Mapping[str, Any], metrics: Any = None, step: int | None = None
    ) -> None:
        """Write what the run is."""
        from torch.utils.tensorboard.summary import hparams

        self.hparams.update(params)
        flat = {key: value if isinstance(value, int | float) else str(value) for key, value in leaves(params)}
        writer = self.experiment._get_file_writer()
        for summary in hparams(flat, dict.fromkeys(MEASURED, 0.0)):  # type: ignore[no-untyped-call]
            writer.add_summary(summary)


def leaves(params: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """(full key, value) of everything that is no mapping.

    >>> leaves({"algorithm": "ppo", "values": {"optimizer": {"lr": 0.1}}})
    [('algorithm', 'ppo'), ('values.optimizer.lr', 0.1)]
    """
    found: list[tuple[str, Any]] = []
    for name, value in params.items():
        found += (
            leaves(value, f"{above}{name}.") if isinstance(value, Mapping) else [(f"{above}{name}", value)]
        )
    return found
