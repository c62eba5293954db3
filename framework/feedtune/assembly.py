"""From a config to the parts of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning import seed_everything
from omegaconf import DictConfig, OmegaConf

from feedtune.configs import build, check, compose_config, to_plain, trust
from feedtune.contracts import Backbone, Collector, RewardSource, Row, Task
from feedtune.errors import UserError
from feedtune.evaluation import EvaluationOptions
from feedtune.module import TuningModule
from feedtune.runs import RECORD, export_of, load_backbone, load_heads
from feedtune.text import Codec
from feedtune.tokenizers import texts_of

TOP_LEVEL = {
    "seed": int,
    "init_from": str | None,
    "run_dir": str | None,
    "parameter_groups": dict[str, Any],
    "trust": list[str],
    "report": bool,
    "evaluation": EvaluationOptions,
}
"""Types of the values in conf/train.yaml that configure no target."""

GROUPS = (
    "backbone",
    "tokenizer",
    "algorithm",
    "reward",
    "task",
    "collector",
    "buffer",
    "optimizer",
    "scheduler",
    "trainer",
    "logger",
    "callbacks",
    "checkpoint",
)
"""The other keys of conf/train.yaml: one for each part of a run."""


@dataclass(frozen=True)
class Assembly:
    """The parts of a run, ready for a Trainer."""

    module: TuningModule
    codec: Codec
    reward: RewardSource
    task: Task
    options: EvaluationOptions

    @property
    def chat(self) -> bool:
        """Whether the task is made of conversations."""
        first = self.module.rows[0]
        return "messages" in first or not isinstance(first.get("prompt", ""), str)

    def eval_rows(self) -> Sequence[Row]:
        """The task's held-out rows."""
        rows = self.task.load("eval")
        if not rows:
            raise UserError("the task has no held-out rows to evaluate on")
        return rows


def checked(config: DictConfig) -> DictConfig:
    """The config, after every check that needs no data; `init_from` has brought its backbone."""
    trust(to_plain(config.trust))
    config = _with_init_from(config)
    check(config, TOP_LEVEL, GROUPS)
    return config


def _with_init_from(config: DictConfig) -> DictConfig:
    """An `init_from` that is a plain transformers folder is opened by the backbone option `hf`."""
    if config.init_from is None or _export(config) is not None:
        return config
    folder = Path(config.init_from)
    if not (folder / "config.json").is_file():
        raise UserError(f"init_from: {folder} is neither a run of feedtune nor a transformers folder")
    opened = compose_config(["backbone=hf"])
    config = config.copy()
    OmegaConf.set_struct(config, False)
    config.backbone, config.tokenizer = opened.backbone, opened.tokenizer
    config.backbone.name = str(folder)
    return config


def _export(config: DictConfig) -> Path | None:
    """The export folder that `init_from` names, if it is one of ours."""
    if config.init_from is None:
        return None
    folder = Path(config.init_from)
    if not folder.exists():
        raise UserError(f"init_from: {folder} does not exist")
    ours = any((candidate / RECORD).is_file() for candidate in (folder, folder / "export"))
    return export_of(folder) if ours else None


def assemble(config: DictConfig, codec: Codec | None = None) -> Assembly:
    """Build everything that a config describes.

    Args:
        config: after `checked`.
        codec: of a run that goes on; by default that of `init_from`, or one that is built from the task.
    """
    seed_everything(config.seed, verbose=False)
    task: Task = build(config.task, "task")
    rows = task.load("train")
    if not rows:
        raise UserError("task: there are no training rows")
    export = _export(config)
    codec = codec or (Codec.load(export) if export else _build_codec(config, rows))
    reward: RewardSource = build(config.reward, "reward")
    collector: Collector = build(config.collector, "collector", codec=codec, reward=reward)
    module = TuningModule(
        algorithm=build(config.algorithm, "algorithm"),
        make_backbone=_backbone_maker(config, codec, export),
        collector=collector,
        buffer=build(config.buffer, "buffer"),
        rows=rows,
        optimizer=build(config.optimizer, "optimizer"),
        scheduler=build(config.scheduler, "scheduler"),
        parameter_groups=to_plain(config.parameter_groups),
        init_heads=partial(load_heads, export=export) if export else None,
        seed=config.seed,
    )
    return Assembly(module, codec, reward, task, EvaluationOptions(**to_plain(config.evaluation)))


def _build_codec(config: DictConfig, rows: Sequence[Row]) -> Codec:
    codec: Codec = build(config.tokenizer, "tokenizer").build(lambda: texts_of(rows))
    return codec


def _backbone_maker(config: DictConfig, codec: Codec, export: Path | None) -> Callable[[], Backbone]:
    def make() -> Backbone:
        if export is None:
            backbone: Backbone = build(config.backbone, "backbone", vocab_size=codec.vocab_size)
        else:
            backbone = load_backbone(export)
        if backbone.vocab_size < codec.vocab_size:
            raise UserError(
                f"the tokenizer has {codec.vocab_size} tokens but the backbone"
                f"{f' of init_from={config.init_from}' if export else ''} knows {backbone.vocab_size}: "
                "they do not belong together"
            )
        return backbone

    return make
