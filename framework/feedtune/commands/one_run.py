"""One run of `feedtune train`, and what its command says at the end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from feedtune.config.saved import asks_for_trust


def run(config: DictConfig, typed: Sequence[str], optimising: bool) -> float | None:
    """One run, in the folder that Hydra has made for it; what it says goes to standard output.

    Args:
        config: as composed.
        typed: the overrides of this run.
        optimising: whether a sweeper goes by what is returned.

    Returns:
        The value of `optimized_metric`.
    """
    from hydra.core.hydra_config import HydraConfig
    from lightning.pytorch.utilities import rank_zero_only

    from feedtune.runs.objective import value_of
    from feedtune.runs.training import describe, train

    folder = Path(HydraConfig.get().runtime.output_dir)
    metrics = train(config, folder, typed=typed)
    if getattr(rank_zero_only, "rank", 0) == 0:  # of several processes, one speaks
        print(describe(metrics))
        if not config.trainer.get("fast_dev_run", False):
            _finish(config, folder)
    return value_of(config.get("optimized_metric"), metrics, folder, wanted=optimising)


def _finish(config: DictConfig, folder: Path) -> None:
    """Write the report, if it can be drawn, and say what can be done next."""
    from feedtune.commands.report import report_line

    print(f"run folder: {folder}")
    if config.report:
        print(report_line([folder], folder / "report.html"))
    print(f"next: {what_next(folder)}")


def what_next(folder: Path) -> str:
    """The commands that a run has been made for, with `--trust` where they would ask for it."""
    from feedtune.runs.export import record_asks_for_trust

    place = shlex.quote(str(folder))
    speaking = record_asks_for_trust(folder)
    measuring = speaking or asks_for_trust(folder)
    evaluate = f"feedtune evaluate {place}{' --trust' if measuring else ''}"
    return f'{evaluate}   or: feedtune generate {place} "Hello"{" --trust" if speaking else ""}'
