"""Every law over the variants that the options of conf/backbone allow, and over any rows.

The options as they are shipped: tests/framework/testing/test_certified.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from feedtune.contracts import Backbone
from feedtune.testing.backbones import AdapterSuite, BackboneSuite, nudged, pads_law, prefix_law, select_law
from feedtune_plugins.backbones.causal_lm import CausalLM
from feedtune_plugins.backbones.hf import HF
from feedtune_plugins.backbones.ngram import NGram
from feedtune_plugins.backbones.recurrent import Recurrent
from feedtune_plugins.backbones.transformer import Transformer

CONF = Path(__file__).parents[3] / "conf" / "backbone"
OPTIONS = sorted(path.stem for path in CONF.glob("*.yaml"))
VOCAB = 61
FP32_INSIDE = 1e-6
"""Rotary angles and RMSNorm of transformers are float32 also in a float64 model."""


def shipped(option: str, folder: Path) -> Backbone:
    """An option as it is shipped; hf reads a folder in place of a hub name."""
    config: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{option}.yaml"))
    del config["defaults"]
    if "name" in config:
        config["name"] = str(folder)
    backbone: Backbone = instantiate(config, vocab_size=VOCAB, _convert_="all")
    return backbone


def test_the_options_are_the_documented_ones() -> None:
    assert {"ngram", "lstm", "gru", "transformer", "hf"} <= set(OPTIONS)


VARIANTS: dict[str, Callable[[], Backbone]] = {
    "unigram": lambda: NGram(vocab_size=VOCAB, n=1),
    "bigram": lambda: NGram(vocab_size=VOCAB, n=2),
    "hashed": lambda: NGram(vocab_size=VOCAB, n=4, buckets=1000),
    "lstm, untied, one layer": lambda: Recurrent(
        vocab_size=VOCAB, embed_size=8, hidden_size=12, layers=1, tied=False
    ),
    "gru, three layers, dropout": lambda: Recurrent(
        vocab_size=VOCAB, cell="gru", embed_size=8, hidden_size=12, layers=3, dropout=0.3
    ),
    "transformer, one kv head, untied": lambda: Transformer(
        vocab_size=VOCAB, hidden_size=16, layers=2, heads=4, kv_heads=1, intermediate_size=24, tied=False
    ),
}


class TestVariants(BackboneSuite):
    @pytest.fixture(autouse=True, params=VARIANTS)
    def _variant(self, request: pytest.FixtureRequest) -> None:
        self.make_variant = VARIANTS[request.param]
        if isinstance(self.make_variant(), CausalLM):
            self.double_tolerance = FP32_INSIDE

    def make(self) -> Backbone:
        return self.make_variant()


class TestEagerAttention(BackboneSuite):
    double_tolerance = FP32_INSIDE

    @pytest.fixture(autouse=True)
    def _folder(self, tiny_llama: Path) -> None:
        self.folder = tiny_llama

    def make(self) -> Backbone:
        return HF(vocab_size=VOCAB, name=str(self.folder), attn_implementation="eager")

    def test_laws_hold_in_float64(self) -> None:
        """But for pads on the left: their scores overflow the float32 softmax of transformers' eager path."""
        with torch.no_grad():
            backbone = self.built().double()
            prefix_law(backbone, 5, FP32_INSIDE)
            pads_law(backbone, [[3, 1]], [[0, 0]], FP32_INSIDE)


class TestLora(AdapterSuite):
    double_tolerance = FP32_INSIDE

    @pytest.fixture(autouse=True)
    def _folder(self, tiny_llama: Path) -> None:
        self.folder = tiny_llama

    def make(self) -> Backbone:
        return HF(vocab_size=VOCAB, name=str(self.folder), lora={"rank": 2})


@cache
def trained(option: str, folder: Path) -> Backbone:
    torch.manual_seed(0)
    return nudged(shipped(option, folder))


@st.composite
def chunked(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    """Real tokens, and pads before them, of some rows in some chunks; rows may wait, pads may follow."""
    count, chunks = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    table = st.lists(st.integers(0, 4), min_size=count, max_size=count)
    lengths = draw(st.lists(table, min_size=chunks, max_size=chunks))
    left = draw(st.lists(table, min_size=chunks, max_size=chunks))
    return lengths, left


@pytest.mark.parametrize("option", OPTIONS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(layout=chunked())
def test_pads_leave_no_trace_wherever_they_are(
    option: str, layout: tuple[list[list[int]], list[list[int]]], tiny_llama: Path
) -> None:
    with torch.no_grad():
        pads_law(trained(option, tiny_llama), *layout, tolerance=1e-5)


@pytest.mark.parametrize("option", OPTIONS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    left=st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_any_rows_can_be_selected(option: str, rows: list[int], left: list[int], tiny_llama: Path) -> None:
    with torch.no_grad():
        select_law(trained(option, tiny_llama), rows, left, tolerance=1e-5)
