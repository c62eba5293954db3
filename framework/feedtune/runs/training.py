"""One run: from a checked config to a folder with weights, metrics and samples."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from feedtune.callbacks import PeriodicEvaluation
from feedtune.config.build import build
from feedtune.config.compose import to_plain
from feedtune.errors import Interrupted, UserError
from feedtune.evaluation import evaluate
from feedtune.module import TuningModule
from feedtune.runs.assembly import Assembly, assemble, checked
from feedtune.runs.export import save
from feedtune.text.codec import Codec

LAST = Path("checkpoints") / "last.ckpt"


def train(
    config: DictConfig, folder: Path, checkpoint: Path | None = None, typed: Sequence[str] = ()
) -> dict[str, float]:
    """Train as the config says; returns the last epoch's metrics.

    Args:
        config: composed from conf/train.yaml.
        folder: the run folder.
        checkpoint: of this run, to go on from.
        typed: the overrides that the user gave, as far as they are known.
    """
    config = checked(config, folder, typed)
    _check_trainer(config.trainer)
    codec = Codec.load(folder / "export") if checkpoint else None
    with Console(stderr=True).status("reading the task, building the model"):
        parts = assemble(config, codec)
    trainer = _trainer(config, parts, folder)
    if trainer.is_global_zero and not _is_rehearsal(trainer):
        parts.codec.save(_made(folder / "export"))
        _record_parts(config, folder)
    try:
        trainer.fit(parts.module, ckpt_path=checkpoint, weights_only=True)
    except (UnpicklingError, EOFError) as error:
        raise UserError(f"{checkpoint}: not a checkpoint of feedtune, or a damaged one") from error
    except SystemExit:  # how Lightning ends after Ctrl-C, from which on it ignores that key
        if not trainer.interrupted:
            raise
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise Interrupted(_how_to_go_on(folder)) from None
    parts.module.check_weights()
    if config.profile and parts.module.stopwatch.laps and trainer.is_global_zero:
        Console().print(parts.module.stopwatch.table())
    if trainer.is_global_zero and not _is_rehearsal(trainer):
        save(parts.module.policy, parts.codec, folder / "export", chat=parts.chat)
    return {name: float(value) for name, value in trainer.logged_metrics.items()}


def _how_to_go_on(folder: Path) -> str:
    if (folder / LAST).is_file():
        return f"interrupted; go on with: feedtune resume {folder}"
    return f"interrupted before the first checkpoint, so start again; {folder} can be used once more"


def _is_rehearsal(trainer: lightning.Trainer) -> bool:
    """`fast_dev_run` leaves no files."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def _record_parts(config: DictConfig, folder: Path) -> None:
    """Let the config that Hydra saved say what `init_from` has brought."""
    path = folder / ".hydra" / "config.yaml"
    if config.init_from is not None and path.is_file():
        saved = OmegaConf.load(path)
        for group in ("backbone", "tokenizer"):
            OmegaConf.update(saved, group, config[group], merge=False)
        OmegaConf.save(saved, path)


def _check_trainer(config: DictConfig) -> None:
    """Refuse at once what Lightning would refuse late, or take for a run that has nothing to do."""
    for name, endless in {"max_epochs": "trainer.max_steps or max_time", "max_steps": "max_epochs"}.items():
        if config.get(name) == 0:
            raise UserError(
                f"trainer.{name}: expected at least 1, or -1 for as long as {endless} allows, got 0: "
                "nothing would be trained"
            )
    if config.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError(
            f"trainer.accelerator={config.accelerator} (as trainer=gpu has it): no GPU is to be seen here; "
            "choose trainer=cpu"
        )


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
            found = evaluate(
                module.policy,
                parts.codec,
                rows,
                parts.reward,
                parts.options,
                collector=module.collector,
            )
        module.train(was_training)
        return found.metrics

    return PeriodicEvaluation(measure, every)


def describe(metrics: dict[str, Any]) -> str:
    """The numbers that people look at first, in one line."""
    wanted = ("rollout/reward", "policy/kl", "loss/policy", "loss/q", "eval/reward")
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in wanted if name in metrics)
