"""metrics.csv and samples.jsonl: one row an epoch, a few responses a rollout.

A resumed run cuts both back to its checkpoint first, so that they end as if nothing had happened. Both are on
the disk before the checkpoint of their epoch is written.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from feedtune.durable import append_file, replace_file
from feedtune.errors import UserError
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
        goes_on = trainer.current_epoch > 0 and path.is_file()
        self.rows = read_metrics(path, trainer.current_epoch) if goes_on else []

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
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows({k: _cell(v) for k, v in row.items()} for row in self.rows)
        replace_file(path, text.getvalue())


def _path(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "metrics.csv"


def _cell(value: Any) -> Any:
    """Numbers in full: a value read back is the value written."""
    return repr(value) if isinstance(value, float) else value


def read_metrics(path: Path, before_epoch: int) -> list[dict[str, Any]]:
    """Rows of a metrics.csv that belong to earlier epochs, as they stand there.

    Raises:
        UserError: it is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{k: v for k, v in row.items() if v != ""} for row in csv.DictReader(file)]
        return [row for row in rows if int(row["epoch"]) < before_epoch]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path}: damaged. Remove it to go on without the rows of earlier epochs") from error


def _as_json(value: Any) -> Any:
    """NaN, no opinion, and infinity are no JSON: null stands for them, however deep they lie."""
    if isinstance(value, Mapping):
        return {key: _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class SamplesFile(Callback):
    """samples.jsonl in the Trainer's `default_root_dir`: epoch, prompt, response, reward by source.

    The first few of each rollout also have `tokens` with `advantage` and `kl` (`feedtune.credit`).
    """

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep the samples of epochs before the one that begins."""
        path = Path(trainer.default_root_dir) / "samples.jsonl"
        if not (_begins(trainer) and path.is_file()):
            return
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = text.split("\n")  # not splitlines: a response may hold U+2028
        kept = "".join(line + "\n" for line in lines if _epoch_of(line) < trainer.current_epoch)
        if kept != text:
            replace_file(path, kept)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Append the records of this epoch's rollouts."""
        assert isinstance(module, TuningModule)
        module.finish_epoch()
        records: list[Mapping[str, Any]] = module.epoch_records
        if records and _begins(trainer):
            path = Path(trainer.default_root_dir) / "samples.jsonl"
            lines = [_as_json({"epoch": trainer.current_epoch, **record}) for record in records]
            with module.stopwatch.part("logging"):
                append_file(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _epoch_of(line: str) -> float:
    """The epoch of a line of samples.jsonl; infinity: a kill has cut the line off."""
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return math.inf
