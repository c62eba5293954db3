"""What W&B is told beside an epoch's numbers: samples, histograms, and rows that it may have lost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from feedtune.callbacks.files import read_metrics
from feedtune.config.secrets import redacted
from feedtune.module import TuningModule
from feedtune.tracking.facts import run_facts
from feedtune.tracking.wandb_run import RunWandb

SAMPLES = "samples"
"""The key of the table."""

Record = Mapping[str, Any]


class TellWandb(Callback):
    """Tables and histograms for each `RunWandb` of the Trainer; others are told numbers only.

    Where a run goes on, W&B is told the rows of metrics.csv that the stopped process did not get rid of, and
    the tables of samples.jsonl: W&B writes and sends what it is told some time later, and with a process that
    is killed, rows are lost.
    """

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Repeat the rows of the epochs before this one; the logger leaves out those that W&B has."""
        folder = Path(trainer.default_root_dir)
        if not _loggers(trainer) or trainer.current_epoch == 0 or not (folder / "metrics.csv").is_file():
            return
        steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)  # of an epoch
        samples = samples_by_epoch(folder / "samples.jsonl")
        for row in read_metrics(folder / "metrics.csv", trainer.current_epoch):
            epoch = int(row["epoch"])
            numbers = {name: float(value) for name, value in row.items()}
            for logger in _loggers(trainer):
                told = {**numbers, **_table(logger, epoch, samples.get(epoch, ()))}
                logger.log_metrics(told, (epoch + 1) * steps - 1)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """What belongs to the epoch's row, which the module tells afterwards."""
        assert isinstance(module, TuningModule)
        module.finish_epoch()
        epoch = trainer.current_epoch
        for logger in _loggers(trainer):
            with module.stopwatch.part("logging"):
                told = _table(logger, epoch, module.epoch_records)
                told |= _histograms(module.epoch_rows) if logger.histograms else {}
                if told:
                    logger.log_metrics(told, trainer.global_step - 1)


@contextmanager
def tracked(trainer: Trainer, config: DictConfig, folder: Path) -> Iterator[None]:
    """Inside of the block a run is trained and exported. Loggers hear what it is, W&B also when it is over.

    Args:
        trainer: of the run.
        config: after `feedtune.runs.assembly.checked`.
        folder: of the run, with `export/` at the end.
    """
    if trainer.loggers and trainer.is_global_zero:
        facts = run_facts(config, folder)
        for logger in trainer.loggers:
            logger.log_hyperparams(facts)
    try:
        yield
    except BaseException:
        for logger in _loggers(trainer):
            logger.finalize("failed")
        raise
    numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for logger in _loggers(trainer):
        logger.close(folder / "export", {name: x for name, x in numbers.items() if math.isfinite(x)})


def _loggers(trainer: Trainer) -> list[RunWandb]:
    """Those of the process that speaks."""
    found = [logger for logger in trainer.loggers if isinstance(logger, RunWandb)]
    return found if trainer.is_global_zero else []


def _table(logger: RunWandb, epoch: int, records: Sequence[Record]) -> dict[str, Any]:
    """The samples of an epoch as a `wandb.Table`, if it is to have one."""
    if not records or not logger.wants_samples(epoch):
        return {}
    import wandb

    columns, rows = sample_table(epoch, records)
    return {SAMPLES: wandb.Table(columns=list(columns), data=rows)}


def sample_table(epoch: int, records: Sequence[Record]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: epoch, prompt, response, reward, reward by source, KL (nats), length (tokens).

    >>> sample_table(3, [{"prompt": "a", "response": "b c", "reward": 1.0, "length": 2}])[1]
    [[3, 'a', 'b c', 1.0, None, 2]]
    """
    sources = sorted({key for record in records for key in record if key.startswith("reward/")})
    columns = ["epoch", "prompt", "response", "reward", *sources, "kl", "length"]
    rows = [
        [epoch, redacted(str(one.get("prompt", ""))), redacted(str(one.get("response", "")))]
        + [_number(one.get(key)) for key in ("reward", *sources)]
        + [_number(one.get("kl_total")), one.get("length")]
        for one in records
    ]
    return columns, rows


def _number(value: Any) -> float | None:
    """None, an empty cell, stands for NaN and for what is no number."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _histograms(rows: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """`histogram/<name>` of numbers of every row of the epoch's rollouts."""
    import wandb

    known = {name: [value for value in values if math.isfinite(value)] for name, values in rows.items()}
    return {f"histogram/{name}": wandb.Histogram(values) for name, values in known.items() if values}


def samples_by_epoch(path: Path) -> dict[int, list[Record]]:
    """The records of a samples.jsonl; none where there is no such file. Lines that are none are left out."""
    found: dict[int, list[Record]] = {}
    lines: Iterable[str] = (
        path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else ()
    )
    for line in lines:
        try:
            record = json.loads(line)
            found.setdefault(int(record["epoch"]), []).append(record)
        except (ValueError, KeyError, TypeError):
            continue
    return found
