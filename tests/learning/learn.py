"""Training on the small task by a card of conf/algorithm as it is shipped, and what came of it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

import feedtune
from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.contracts import Backbone, Row
from feedtune.module import TuningModule
from feedtune.sampling import Decoding, sample
from feedtune.text.codec import Codec
from feedtune_plugins.algorithms.preferences import row_rewards
from feedtune_plugins.collectors import Pairs
from learning.task import LETTERS, PROMPTS, reward, score

RECURRENT = ("backbone.embed_size=16", "backbone.hidden_size=32", "backbone.layers=1")
SIZES: dict[str, tuple[str, ...]] = {
    "ngram": ("backbone.n=5",),  # sees the prompt from every token of an answer: an exact table
    "lstm": RECURRENT,
    "gru": RECURRENT,
    "transformer": (
        "backbone.hidden_size=32",
        "backbone.layers=1",
        "backbone.heads=2",
        "backbone.kv_heads=2",
        "backbone.intermediate_size=64",
        "backbone.context_length=16",
    ),
}
ANSWER_TOKENS = 3  # two letters and the end


@dataclass(frozen=True)
class Learnt:
    """A module after training, and its tokenizer."""

    module: TuningModule
    codec: Codec

    def quality(self, greedy: bool = False, rows: int = 64) -> float:
        """Mean score of so many sampled answers to each prompt, or of the greedy ones."""
        group = 1 if greedy else rows
        self.module.eval()
        responses = sample(
            self.module.policy,
            [prompt.tokens for prompt in self.codec.prompts(PROMPTS)],
            max_new_tokens=ANSWER_TOKENS,
            eos_ids=self.codec.eos_ids,
            generator=torch.Generator().manual_seed(99),
            group_size=group,
            decoding=Decoding(greedy=greedy),
        )
        said = [self.codec.response(response.tokens) for response in responses]
        return sum(score(LETTERS[i // group], text) for i, text in enumerate(said)) / len(said)

    @torch.no_grad()
    def order(self, pairs: Sequence[Row]) -> float:
        """Share of these pairs whose better answer the reward model scores higher."""
        collector = Pairs(codec=self.codec)
        items = collector.load(pairs, None)
        exp = collector.collect(items, self.module.policy, torch.Generator()).experience
        better, worse = row_rewards(self.module.policy, exp).unflatten(0, (-1, 2)).unbind(-1)
        return float((better > worse).float().mean())

    def weights(self) -> dict[str, Tensor]:
        """The backbone's, from which another training may start."""
        return {name: weight.clone() for name, weight in self.module.policy.backbone.state_dict().items()}


@cache
def composed(algorithm: str, backbone: str, *overrides: str) -> Any:
    """A config with the algorithm's card as it is shipped, but for what is overridden."""
    return compose_config([f"algorithm={algorithm}", f"backbone={backbone}", *SIZES[backbone], *overrides])


def learn(
    algorithm: str,
    backbone: str,
    rows: Sequence[Row],
    seed: int,
    epochs: int,
    *overrides: str,
    weights: Mapping[str, Tensor] | None = None,
) -> Learnt:
    """Train through Lightning on one thread, from random weights or from these of an earlier training."""
    config = composed(algorithm, backbone, *overrides)
    codec = feedtune.TrainedTokenizer(kind="char").build(lambda: [LETTERS])
    torch.manual_seed(seed)

    def make_backbone() -> Backbone:
        made: Backbone = build(config.backbone, "backbone", vocab_size=codec.vocab_size)
        if weights is not None:
            made.load_state_dict(weights)
        return made

    module = TuningModule(
        algorithm=build(config.algorithm, "algorithm"),
        make_backbone=make_backbone,
        collector=build(config.collector, "collector", codec=codec, reward=reward),
        buffer=build(config.buffer, "buffer"),
        rows=rows,
        optimizer=build(config.optimizer, "optimizer"),
        scheduler=build(config.scheduler, "scheduler"),
        seed=seed,
    )
    with _quiet():
        _trainer(epochs).fit(module)
    return Learnt(module, codec)


def _trainer(epochs: int) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        gradient_clip_val=1.0,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning asks for worker processes, which a rollout cannot have, and announces every start and end."""
    console = logging.getLogger("lightning.pytorch")
    level = console.level
    console.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The 'train_dataloader' does not have many workers")
            yield
    finally:
        console.setLevel(level)
