"""One run: from a checked config to a folder with weights, metrics and samples."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from rich.console import Console

from feedtune import runs
from feedtune.assembly import Assembly, assemble, checked
from feedtune.callbacks import PeriodicEvaluation
from feedtune.configs import build, to_plain
from feedtune.errors import UserError
from feedtune.evaluation import evaluate
from feedtune.module import TuningModule
from feedtune.text import Codec

LAST = Path("checkpoints") / "last.ckpt"


def train(config: DictConfig, folder: Path, checkpoint: Path | None = None) -> dict[str, float]:
    """Train as the config says; returns the last epoch's metrics.

    Args:
        config: composed from conf/train.yaml.
        folder: the run folder.
        checkpoint: of this run, to go on from.
    """
    config = checked(config, folder)
    codec = Codec.load(folder / "export") if checkpoint else None
    with Console(stderr=True).status("reading the task, building the model"):
        parts = assemble(config, codec)
    trainer = _trainer(config, parts, folder)
    if trainer.is_global_zero and not _is_rehearsal(trainer):
        parts.codec.save(_made(folder / "export"))
    try:
        trainer.fit(parts.module, ckpt_path=checkpoint, weights_only=True)
    except (UnpicklingError, EOFError) as error:
        raise UserError(f"{checkpoint}: not a checkpoint of feedtune, or a damaged one") from error
    if trainer.interrupted:
        raise KeyboardInterrupt
    if trainer.is_global_zero and not _is_rehearsal(trainer):
        runs.save(parts.module.policy, parts.codec, folder / "export", chat=parts.chat)
    return {name: float(value) for name, value in trainer.logged_metrics.items()}


def _is_rehearsal(trainer: lightning.Trainer) -> bool:
    """`fast_dev_run` leaves no files."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _trainer(config: DictConfig, parts: Assembly, folder: Path) -> lightning.Trainer:
    callbacks = [build(node, f"callbacks.{name}") for name, node in config.callbacks.items()]
    periodic = _periodic_evaluation(parts)
    callbacks = [*([periodic] if periodic else []), *(c for c in callbacks if c)]
    rehearsal = config.trainer.get("fast_dev_run", False)
    saver = None if rehearsal else build(config.checkpoint, "checkpoint")
    logger = None if rehearsal else build(config.logger, "logger")
    if logger:
        logger.log_hyperparams(to_plain(config))
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on workers and devices that a config has already decided
        trainer: lightning.Trainer = build(
            config.trainer,
            "trainer",
            callbacks=[*callbacks, *([saver] if saver else [])],
            logger=logger or False,
            default_root_dir=str(folder),
            **({} if saver else {"enable_checkpointing": False}),  # or Lightning adds a saver of its own
        )
    return trainer


def _periodic_evaluation(parts: Assembly) -> Callback | None:
    every = parts.options.every
    if every is None:
        return None
    rows = parts.eval_rows()

    def measure(module: TuningModule) -> dict[str, float]:
        was_training = module.training
        module.eval()
        with module.trainer.precision_plugin.forward_context():
            found = evaluate(module.policy, parts.codec, rows, parts.reward, parts.options)
        module.train(was_training)
        return found.metrics

    return PeriodicEvaluation(measure, every)


def describe(metrics: dict[str, Any]) -> str:
    """The numbers that people look at first, in one line."""
    wanted = ("rollout/reward", "policy/kl", "loss/policy", "loss/q", "eval/reward")
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in wanted if name in metrics)
