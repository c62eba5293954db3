"""metrics.csv and samples.jsonl: one row an epoch, a few responses a rollout.

A resumed run cuts both back to its checkpoint first, so that they end as if nothing had happened.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from feedtune.module import TuningModule


def _begins(trainer: Trainer) -> bool:
    return trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]


class MetricsCSV(Callback):
    """metrics.csv in the Trainer's `default_root_dir`: the epoch, then every metric by name."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep the rows of epochs before the one that begins."""
        path = _path(trainer)
        self.rows = read_metrics(path, trainer.current_epoch) if path.is_file() else []

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the epoch's row; the whole file again, for an epoch may bring new columns."""
        assert isinstance(module, TuningModule)
        means = module.finish_epoch()
        if _begins(trainer):
            with module.stopwatch.part("logging"):
                self.rows.append({"epoch": trainer.current_epoch, **means})
                self._write(_path(trainer))

    def _write(self, path: Path) -> None:
        columns = ["epoch", *sorted({name for row in self.rows for name in row} - {"epoch"})]
        partial = path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows({k: _cell(v) for k, v in row.items()} for row in self.rows)
        partial.replace(path)


def _path(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "metrics.csv"


def _cell(value: Any) -> Any:
    """Numbers in full: a value read back is the value written."""
    return repr(value) if isinstance(value, float) else value


def read_metrics(path: Path, before_epoch: int) -> list[dict[str, Any]]:
    """Rows of a metrics.csv that belong to earlier epochs, as they stand there."""
    with path.open(newline="") as file:
        rows = [{k: v for k, v in row.items() if v != ""} for row in csv.DictReader(file)]
    return [row for row in rows if int(row["epoch"]) < before_epoch]


def _as_json(record: Mapping[str, Any]) -> dict[str, Any]:
    """NaN, no opinion, is no JSON: null stands for it."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()}


class SamplesFile(Callback):
    """samples.jsonl in the Trainer's `default_root_dir`: epoch, prompt, response, reward by source."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep the samples of epochs before the one that begins."""
        path = Path(trainer.default_root_dir) / "samples.jsonl"
        if not (_begins(trainer) and path.is_file()):
            return
        lines = path.read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["epoch"] < trainer.current_epoch]
        path.write_text("".join(line + "\n" for line in kept))

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Append the records of this epoch's rollouts."""
        assert isinstance(module, TuningModule)
        module.finish_epoch()
        records: list[Mapping[str, Any]] = module.epoch_records
        if records and _begins(trainer):
            path = Path(trainer.default_root_dir) / "samples.jsonl"
            with module.stopwatch.part("logging"), path.open("a") as file:
                file.writelines(
                    json.dumps(_as_json({"epoch": trainer.current_epoch, **r}), ensure_ascii=False) + "\n"
                    for r in records
                )
