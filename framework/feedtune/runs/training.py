"""One run: from a checked config to a folder with weights, metrics and samples."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from safetensors import SafetensorError

from feedtune.callbacks import PeriodicEvaluation, SelfCheck
from feedtune.callbacks.postmortem import PostMortem
from feedtune.checkpoints.saver import SaveCheckpoints, StateFile
from feedtune.config.build import build
from feedtune.config.saved import how_to_go_on
from feedtune.durable import replace_file
from feedtune.errors import Interrupted, UserError, one_line
from feedtune.evaluation import evaluate
from feedtune.module import TuningModule
from feedtune.runs.assembly import Assembly, assemble, checked
from feedtune.runs.continuing import check_length, codec_of, introduce, record_config
from feedtune.runs.export import save
from feedtune.runs.failures import recorded
from feedtune.runs.mistakes import all_at_once
from feedtune.runs.shortage import memory_in_words
from feedtune.runs.signals import StopAtStep, end_children_at_exit, stoppable
from feedtune.runs.trainer_checks import check_trainer
from feedtune.tracking.telling import TellWandb, tracked


def train(
    config: DictConfig,
    folder: Path,
    checkpoint: Path | None = None,
    typed: Sequence[str] = (),
    *,
    force: bool = False,
) -> dict[str, float]:
    """Train as the config says; returns the last epoch's metrics.

    Args:
        config: composed from conf/train.yaml.
        folder: the run folder.
        checkpoint: of this run, to go on from, as `feedtune.checkpoints.newest` gives it.
        typed: the overrides that the user gave, as far as they are known.
        force: go on from the checkpoint although the run is no longer the one that wrote it.
    """
    with stoppable(), recorded(folder):
        return _train(config, folder, checkpoint, typed, force)


def _train(
    config: DictConfig, folder: Path, checkpoint: Path | None, typed: Sequence[str], force: bool
) -> dict[str, float]:
    given = config
    with all_at_once(given):
        config = checked(given, folder, typed)
        check_trainer(config.trainer)
        if checkpoint:
            check_length(config.trainer, checkpoint)
        codec = codec_of(checkpoint) if checkpoint else None
        waiting = Console(stderr=True).status("reading the task, building the model")
        with waiting, memory_in_words(config, lambda: "while the model was built"):
            parts = assemble(config, codec)
        trainer = _trainer(config, parts, folder)
    writes = trainer.is_global_zero and not _is_rehearsal(trainer)
    if writes:
        introduce(_saver_of(trainer), config, parts, trainer.world_size, checkpoint, force)
        parts.codec.save(_made(folder / "export"))
        if checkpoint:
            record_config(given, folder, typed)
        else:
            _record_parts(config, folder)
    with tracked(trainer, config, folder):
        shortage = memory_in_words(config, lambda: parts.module.place)
        with shortage, all_at_once(config, until=lambda: parts.module.collecting):
            _fit(trainer, parts.module, checkpoint)
        parts.module.check_weights()
        if config.profile and parts.module.stopwatch.laps and trainer.is_global_zero:
            Console().print(parts.module.stopwatch.table())
        if writes:
            _export(parts, folder)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _fit(trainer: lightning.Trainer, module: TuningModule, checkpoint: Path | None) -> None:
    try:
        trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    except Interrupted:
        end_children_at_exit(trainer)
        raise
    except MisconfigurationException as error:  # what Lightning's own callbacks cannot do in this run
        raise UserError(f"callbacks, or trainer: {one_line(error)}") from error
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, RuntimeError) and str(error).startswith("Early stopping conditioned on metric"):
            raise UserError(f"callbacks: {one_line(error)}") from error
        if not module.restoring:
            raise
        said = shorten(one_line(error), 200)
        raise UserError(f"{checkpoint}: its state does not fit this run: {said}") from error


def _export(parts: Assembly, folder: Path) -> None:
    try:
        save(parts.module.policy, parts.codec, folder / "export", chat=parts.chat)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder / 'export'}: cannot be written: {one_line(error)}. The run itself is complete: "
            f"with room, {how_to_go_on(folder)} writes it"
        ) from error


def _saver_of(trainer: lightning.Trainer) -> SaveCheckpoints | None:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((one for one in callbacks if isinstance(one, SaveCheckpoints)), None)


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
        replace_file(path, OmegaConf.to_yaml(saved))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _trainer(config: DictConfig, parts: Assembly, folder: Path) -> lightning.Trainer:
    callbacks = [build(node, f"callbacks.{name}") for name, node in config.callbacks.items()]
    periodic = _periodic_evaluation(parts)
    callbacks = [*([periodic] if periodic else []), *(c for c in callbacks if c)]
    if config.selfcheck:  # first: where it refuses, nothing has been written yet
        callbacks = [SelfCheck(parts.codec), *callbacks]
    rehearsal = config.trainer.get("fast_dev_run", False)
    saving = config.trainer.get("enable_checkpointing", True) and not rehearsal
    saver = build(config.checkpoint, "checkpoint") if saving else None
    ours = saver if isinstance(saver, SaveCheckpoints) else None
    if ours and ours.best and ours.best.metric.startswith("eval/") and not periodic:
        raise UserError(
            f"checkpoint.best.metric: {ours.best.metric} is measured while training only with "
            "evaluation.every=..., the epochs between two evaluations"
        )
    logger = None if rehearsal else build(config.logger, "logger")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on workers and devices that a config has already decided
        trainer: lightning.Trainer = build(
            config.trainer,
            "trainer",
            callbacks=[
                *callbacks,
                *([PostMortem(ours)] if ours else []),
                TellWandb(),
                StopAtStep(ours),  # before the saver, whose turn does not come where this one stops
                *([saver] if saver else []),
            ],
            logger=logger or False,
            default_root_dir=str(folder),
            enable_checkpointing=True,  # StopAtStep is a `Checkpoint`, so Lightning adds no saver of its own
        )
    trainer.strategy.checkpoint_io = StateFile()
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
                monitor=parts.monitor,
            )

        module.train(was_training)
        return found.metrics

    return PeriodicEvaluation(measure, every)


def describe(metrics: dict[str, Any]) -> str:
    """The numbers that people look at first, in one line."""
    wanted = (
        *("rollout/reward", "policy/kl", "loss/policy", "loss/q", "loss/reward"),
        *("eval/reward", "eval/preference_accuracy"),
    )
    return "  ".join(f"{name} {metrics[name]:.4g}" for name in wanted if name in metrics)
