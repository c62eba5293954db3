"""From a config to the parts of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning import seed_everything
from omegaconf import DictConfig, OmegaConf

from feedtune.config.build import build
from feedtune.config.check import check
from feedtune.config.compose import said_of_origin, to_plain
from feedtune.config.discovery import OPTIONAL
from feedtune.config.local_plugins import use
from feedtune.config.saved import remember_code
from feedtune.config.secrets import refuse_secrets
from feedtune.config.trust import trust
from feedtune.config.types import fits, wrong_type
from feedtune.contracts import Backbone, Collector, RewardSource, Row, Sample, Scores, Task
from feedtune.errors import UserError
from feedtune.evaluation import EvaluationOptions, MonitorOptions
from feedtune.module import TuningModule
from feedtune.nonfinite import OnNonFinite
from feedtune.rewards import RewardCalls, call_metrics, guarded
from feedtune.runs.export import load_backbone, load_heads
from feedtune.runs.objective import check_measured
from feedtune.runs.starting_point import check_fits, choose_parts, export_named
from feedtune.text.codec import Codec
from feedtune.text.spelling import Spelling
from feedtune.text.tokenizers import texts_of

TOP_LEVEL: Mapping[str, Any] = {
    "seed": int,
    "init_from": str | None,
    "run_dir": str | None,
    "parameter_groups": Mapping[str, Mapping[str, Any]] | None,
    "overfit_rows": int | None,
    "optimized_metric": str | None,
    "trust": list[str],
    "plugins_path": str | None,
    "report": bool,
    "profile": bool,
    "selfcheck": bool,
    "on_nonfinite": OnNonFinite,
    "monitor": MonitorOptions | Mapping[str, Any],
    "reward_calls": RewardCalls | Mapping[str, Any],
    "evaluation": EvaluationOptions | Mapping[str, Any],
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

SEEDS = 2**32


@dataclass(frozen=True)
class Assembly:
    """The parts of a run, ready for a Trainer."""

    module: TuningModule
    codec: Codec
    reward: RewardSource | None
    task: Task
    options: EvaluationOptions
    monitor: RewardSource | None = None  # only looks on

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


def checked(config: DictConfig, folder: Path, typed: Sequence[str] = ()) -> DictConfig:
    """The config, after every check that needs no data; `init_from` has brought its backbone.

    Args:
        config: composed from conf/train.yaml; it stays as it is.
        folder: of the run, which becomes `run_dir`.
        typed: the overrides that the user gave, as far as they are known.
    """
    config = config.copy()
    OmegaConf.set_struct(config, False)
    config.run_dir = str(folder)
    for group in OPTIONAL:
        if config.get(group) is None:
            config[group] = {}
    prefixes = to_plain(config.get("trust", []))
    if not fits(prefixes, list[str]):
        raise UserError(wrong_type("trust", prefixes, list[str]))
    trust(prefixes)
    if isinstance(config.get("plugins_path"), str):  # of anything else `check` complains
        config.plugins_path = str(use(config.plugins_path))
    check(config, TOP_LEVEL, GROUPS)
    refuse_secrets(to_plain(config))
    remember_code(config)
    check_seed(config)
    check_together(config)
    return choose_parts(config, typed)


def check_seed(config: DictConfig) -> None:
    """Refuse a seed that generators do not take."""
    if not 0 <= config.seed < SEEDS:
        raise UserError(f"seed: expected a whole number from 0 to {SEEDS - 1}, got {config.seed}")


def check_together(config: DictConfig) -> None:
    """Refuse values that are right alone and cannot be meant together, as far as they tell without data."""
    check_measured(config)
    if config.overfit_rows is not None and config.overfit_rows < 1:
        raise UserError(f"overfit_rows: expected at least 1, or null for all, got {config.overfit_rows}")
    longest = OmegaConf.select(config, "collector.max_new_tokens")
    context = OmegaConf.select(config, "backbone.context_length")
    if isinstance(longest, int) and isinstance(context, int) and longest >= context and not config.init_from:
        raise UserError(
            f"collector.max_new_tokens: {longest} leaves no room for a prompt in "
            f"backbone.context_length={context}"
        )


def assemble(config: DictConfig, codec: Codec | None = None) -> Assembly:
    """Build everything that a config describes.

    Args:
        config: after `checked`.
        codec: of a run that goes on; by default that of `init_from`, or one that is built from the task.
    """
    seed_everything(config.seed, verbose=False)
    calls = RewardCalls(**to_plain(config.reward_calls))
    task: Task = build(config.task, "task")
    try:
        rows = task.load("train")
    except UserError as error:
        raise UserError(said_of_origin(config, str(error))) from error
    if not rows:
        raise UserError("task: there are no training rows")
    export = export_named(config)
    codec = codec or _codec(config, rows, export)
    reward = _reward(config, calls)
    collector: Collector = build(config.collector, "collector", codec=codec, reward=reward or no_reward)
    module = TuningModule(
        algorithm=build(config.algorithm, "algorithm"),
        make_backbone=_backbone_maker(config, codec, export),
        collector=collector,
        buffer=build(config.buffer, "buffer"),
        rows=rows[: config.overfit_rows],
        optimizer=build(config.optimizer, "optimizer"),
        scheduler=build(config.scheduler, "scheduler"),
        parameter_groups=to_plain(config.parameter_groups) or {},
        init_heads=partial(load_heads, export=export) if export else None,
        seed=config.seed,
        profile=config.profile,
        measures=partial(call_metrics, reward),
        spell=Spelling(codec),
        on_nonfinite=config.on_nonfinite,
    )
    options = EvaluationOptions(**to_plain(config.evaluation))
    monitor = _monitor(config, options, collector, calls)
    return Assembly(module, codec, reward, task, options, monitor)


def _monitor(
    config: DictConfig, options: EvaluationOptions, collector: Collector, calls: RewardCalls
) -> RewardSource | None:
    """The source that looks on, if there is one and the run evaluates responses that it can look at."""
    source: RewardSource | None = build(config.monitor.reward, "monitor.reward")
    if source is None:
        return None
    if options.every is None:
        raise UserError(
            "monitor.reward: it scores what evaluation while training samples; set evaluation.every, such as "
            "evaluation.every=5"
        )
    if type(collector).perform is not Collector.perform:
        raise UserError(
            f"monitor.reward: with {type(collector).__name__} evaluation plays episodes, which no reward "
            "source scores; leave it out"
        )
    return guarded(source, calls)


def _reward(config: DictConfig, calls: RewardCalls) -> RewardSource | None:
    """The run's reward source under its policy of calls; None where it has none."""
    reward: RewardSource | None = build(config.reward, "reward")
    if reward is None and not config.monitor.reward and calls != RewardCalls():
        raise UserError("reward_calls: the run has no reward source to call; leave it as it is")
    return None if reward is None else guarded(reward, calls)


def no_reward(samples: Sequence[Sample]) -> Scores:
    """Stands where `~reward` left the reward out: nothing may ask for a score."""
    raise UserError("reward: the run has none, but responses are to be scored; choose one with reward=...")


def _codec(config: DictConfig, rows: Sequence[Row], export: Path | None) -> Codec:
    """That of `init_from`, unless the user chose a tokenizer, which then has to spell as that one does."""
    if export is not None and not config.tokenizer:
        return Codec.load(export)
    try:
        codec: Codec = build(config.tokenizer, "tokenizer").build(lambda: texts_of(rows))
    except UserError as error:
        raise UserError(said_of_origin(config, str(error))) from error
    if config.init_from is not None:
        check_fits(codec, export or Path(config.init_from), config.init_from)
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
