"""Fixtures of the whole suite: tiny backbones with random weights, built once and handed out as copies."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from absl import logging as absl_logging

from feedtune.contracts import Backbone
from kills.nursery import Nursery

VOCABULARY = 11

collect_ignore = ["third_party_plugin"]
"""Another distribution, whose tests run where it is installed (distributions/test_third_party_plugin.py)."""

# rouge_score brings absl, whose log handler keeps the stderr of its import, here pytest's own, and closes it
# as soon as Hydra sets logging up anew; the process's stderr it leaves alone.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__

# On tensors as small as here a second thread only waits for the first: half the time, measured.
torch.set_num_threads(1)


def _ngram() -> Backbone:
    from feedtune_plugins.backbones.ngram import NGram

    backbone = NGram(vocab_size=VOCABULARY, n=3, buckets=1000)
    torch.nn.init.normal_(backbone.table.weight)
    return backbone


def _recurrent(cell: str) -> Backbone:
    from feedtune_plugins.backbones.recurrent import Recurrent

    backbone = Recurrent(vocab_size=VOCABULARY, cell=cell, embed_size=8, hidden_size=12, layers=2)  # type: ignore[arg-type]
    torch.nn.init.normal_(backbone.embedding.weight)  # far from uniform: wrong logits must show
    return backbone


def _transformer() -> Backbone:
    from feedtune_plugins.backbones.transformer import Transformer

    backbone = Transformer(
        vocab_size=VOCABULARY,
        hidden_size=16,
        layers=2,
        heads=2,
        kv_heads=1,
        intermediate_size=24,
        context_length=64,
    )
    for parameter in backbone.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return backbone


BUILDERS: dict[str, Callable[[], Backbone]] = {
    "ngram": _ngram,
    "lstm": lambda: _recurrent("lstm"),
    "gru": lambda: _recurrent("gru"),
    "transformer": _transformer,
}


@pytest.fixture(scope="session")
def tiny_backbone() -> Callable[[str], Backbone]:
    """A tiny backbone over 11 tokens by name, in evaluation mode: always the same weights, a fresh copy."""
    built: dict[str, Backbone] = {}

    def make(name: str) -> Backbone:
        if name not in built:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                built[name] = BUILDERS[name]().eval()
        return copy.deepcopy(built[name])

    return make


@pytest.fixture(params=sorted(BUILDERS))
def backbone(request: pytest.FixtureRequest, tiny_backbone: Callable[[str], Backbone]) -> Backbone:
    """Each tiny backbone in turn."""
    return tiny_backbone(request.param)


@pytest.fixture(scope="session", autouse=True)
def own_data_of_wandb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """W&B keeps tables and models of offline runs at home until they are synced, which these never are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DATA_DIR", str(tmp_path_factory.mktemp("wandb_data")))
        yield


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Forks a process for each command line, which can be killed: see kills/nursery.py."""
    one = Nursery(tmp_path_factory.mktemp("nursery"))
    yield one
    one.close()
