"""Small cases of both of our environments are solved from scratch by four algorithms, with two seeds each."""

from __future__ import annotations

from pathlib import Path

import lightning
import pytest
import torch

from feedtune.config.compose import compose_config
from feedtune.randomness import generator_for
from feedtune.runs.assembly import Assembly, assemble, checked
from feedtune.sampling import Decoding
from feedtune_plugins.collectors import Gymnasium

# Three letters, each of a, b, c once: BLEU of single letters is 1 for these six texts, 2/3 with one twice.
# Of nine tokens six are special, and end the episode with nothing: at random about 0.02 is earned.
CHAR_TEXT = [
    "collector.env=feedtune/CharText-v0",
    "collector.step=token",
    "collector.options={length: 3, alphabet: abc, rows: [{prompt: '', reference: cab}]}",
    "tokenizer=char",
    "reward=bleu",
    "reward.unit=characters",
    "reward.n_gram=1",
]
# "a b" is to be one word: delete 0 or delete 1 gains 1/2. Of 14 tokens two in a row have to be right, and a
# second, needless delete loses it all: at random about 0.01 is gained.
TEXT_EDIT = [
    "collector.env=feedtune/TextEdit-v0",
    "collector.step=turn",
    "collector.max_new_tokens=2",
    "collector.options={max_edits: 2, rows: [{text: a b}], words: [a, b]}",
    "tokenizer=word",
    "reward=length",
    "reward.target=1",
]
GRU = ["backbone=gru", "backbone.embed_size=16", "backbone.hidden_size=32", "backbone.layers=1"]
LSTM = ["backbone=lstm", "backbone.embed_size=16", "backbone.hidden_size=32", "backbone.layers=1"]
REPLAY = ["buffer.minibatch_size=32", "buffer.updates=16"]
ALGORITHMS = {
    "q_learning": [
        "backbone=ngram",
        "backbone.n=8",
        "optimizer=sgd",
        "optimizer.lr=0.03",
        "algorithm.acting.epsilon=0.3",
        *REPLAY,
    ],
    "dqn": [*LSTM, "optimizer.lr=5e-3", *REPLAY],
    "reinforce": [*GRU, "algorithm.kl.coefficient=0", "optimizer.lr=2e-2"],
    "ppo": [*GRU, "algorithm.kl.coefficient=0", "optimizer.lr=1e-2"],
}
EPOCHS = {"q_learning": 16, "dqn": 12, "reinforce": 30, "ppo": 30}


def trained(environment: list[str], algorithm: str, seed: int, folder: Path) -> Assembly:
    """A run of seconds, as `feedtune train` would assemble it."""
    config = compose_config(
        [
            f"algorithm={algorithm}",
            "collector=gymnasium",
            "task=gymnasium",
            "task.rows=8",
            "task.eval_rows=0",
            *environment,
            *ALGORITHMS[algorithm],
            f"seed={seed}",
        ]
    )
    parts = assemble(checked(config, folder))
    trainer = lightning.Trainer(
        max_epochs=EPOCHS[algorithm],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=None,
    )
    trainer.fit(parts.module)
    return parts


def greedy_reward(parts: Assembly) -> float:
    """What the policy earns when it does what it thinks best."""
    collector = parts.module.collector
    assert isinstance(collector, Gymnasium)
    collector.decoding, collector.episodes = Decoding(greedy=True), 8
    items = collector.load(parts.module.rows, None)[:8]
    with torch.no_grad():
        rollout = collector.collect(items, parts.module.policy.eval(), generator_for(0))
    return rollout.metrics["rollout/reward"]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_char_text_is_solved(algorithm: str, seed: int, tmp_path: Path) -> None:
    """The best that there is: the third letter is neither of the two before it."""
    assert greedy_reward(trained(CHAR_TEXT, algorithm, seed, tmp_path)) == 1.0


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_text_edit_is_solved(algorithm: str, seed: int, tmp_path: Path) -> None:
    """The best that there is: one word deleted, the other left alone."""
    assert greedy_reward(trained(TEXT_EDIT, algorithm, seed, tmp_path)) == 0.5
