"""A small task that can be learnt in seconds: answer each letter with the two that follow it in the alphabet.

Four prompts, a vocabulary of ten tokens; a random answer is worth about 0.08, the right one 1.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from lightning import Trainer

import feedtune
from feedtune.configs import build, compose_config
from feedtune.contracts import Backbone, Row, Sample
from feedtune.module import TuningModule
from feedtune.sampling import Decoding, sample
from feedtune.text import Codec

LETTERS = "abcd"
ROWS: list[Row] = [{"prompt": letter} for letter in LETTERS]


def answer(letter: str) -> str:
    """The next two letters, in a circle.

    >>> answer("g")
    'ha'
    """
    start = LETTERS.index(letter)
    return "".join(LETTERS[(start + step) % len(LETTERS)] for step in (1, 2))


def score(prompt: str, response: str) -> float:
    """Half a point for each letter in its place, less a tenth for each letter too many.

    >>> score("a", "bc"), score("a", "bx"), score("a", "bcc")
    (1.0, 0.5, 0.9)
    """
    right = sum(said == wanted for said, wanted in zip(response, answer(prompt), strict=False))
    return right / 2 - 0.1 * max(0, len(response) - 2)


def reward(samples: Sequence[Sample]) -> list[float]:
    """The run's reward source."""
    return [score(one.prompt, one.response) for one in samples]


def logged(count: int, seed: int = 0) -> list[Row]:
    """Answers of somebody who guesses, with what they were worth: half of the letters are right."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        prompt = LETTERS[number % len(LETTERS)]
        said = "".join(c if draw.random() < 0.5 else draw.choice(LETTERS) for c in answer(prompt))
        rows.append({"prompt": prompt, "reference": said, "reward": score(prompt, said)})
    return rows


def preferred(count: int, seed: int = 0) -> list[Row]:
    """Pairs of guesses, the better one chosen."""
    first, second = logged(count, 2 * seed), logged(count, 2 * seed + 1)
    rows = []
    for one, other in zip(first, second, strict=True):
        better, worse = (one, other) if one["reward"] > other["reward"] else (other, one)
        if better["reward"] > worse["reward"]:
            rows.append({"prompt": one["prompt"], "chosen": better["reference"], "rejected": worse["reference"]})
    return rows


SIZES: dict[str, list[str]] = {
    "ngram": ["backbone.n=4"],
    "lstm": ["backbone.embed_size=16", "backbone.hidden_size=32", "backbone.layers=1"],
    "gru": ["backbone.embed_size=16", "backbone.hidden_size=32", "backbone.layers=1"],
    "transformer": [
        "backbone.hidden_size=32",
        "backbone.layers=1",
        "backbone.heads=2",
        "backbone.kv_heads=2",
        "backbone.intermediate_size=64",
        "backbone.context_length=16",
    ],
}


@cache
def composed(algorithm: str, backbone: str, *overrides: str) -> Any:
    """A config with the algorithm's card as it is shipped, but for what is overridden."""
    sizes = SIZES[backbone]
    return compose_config([f"algorithm={algorithm}", f"backbone={backbone}", *sizes, *overrides])


def learn(
    algorithm: str, backbone: str, rows: Sequence[Row], seed: int, epochs: int, *overrides: str
) -> tuple[TuningModule, Codec]:
    """Train by the card through Lightning, from random weights."""
    config = composed(algorithm, backbone, *overrides)
    codec = feedtune.TrainedTokenizer(kind="char").build(lambda: [LETTERS])
    torch.manual_seed(seed)

    def make_backbone() -> Backbone:
        made: Backbone = build(config.backbone, "backbone", vocab_size=codec.vocab_size)
        return made

    module = TuningModule(
        algorithm=build(config.algorithm, "algorithm"),
        make_backbone=make_backbone,
        collector=build(config.collector, "collector", codec=codec, reward=reward),
        buffer=build(config.buffer, "buffer"),
        rows=rows,
        optimizer=build(config.optimizer, "optimizer"),
        seed=seed,
    )
    trainer = Trainer(
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        gradient_clip_val=1.0,
    )
    trainer.fit(module)
    return module, codec


def quality(module: TuningModule, codec: Codec, greedy: bool = False, rows: int = 16) -> float:
    """Mean score of so many answers to each prompt, sampled or greedy."""
    module.eval()
    prompts = codec.prompts(ROWS)
    group = 1 if greedy else rows
    responses = sample(
        module.policy,
        [prompt.tokens for prompt in prompts],
        max_new_tokens=3,
        eos_ids=codec.eos_ids,
        generator=torch.Generator().manual_seed(99),
        group_size=group,
        decoding=Decoding(greedy=greedy),
    )
    said = [codec.response(response.tokens) for response in responses]
    return sum(score(LETTERS[i // group], text) for i, text in enumerate(said)) / len(said)
