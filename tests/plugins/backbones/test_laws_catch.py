"""Backbones that break one law each: the suite has to find them out."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from feedtune.contracts import State
from feedtune.testing.backbones import BackboneSuite, prefix_law
from feedtune_plugins.backbones.causal_lm import CausalLM
from feedtune_plugins.backbones.ngram import NGram
from feedtune_plugins.backbones.recurrent import Recurrent
from feedtune_plugins.backbones.transformer import Transformer

MADE = count()
TINY = {"hidden_size": 16, "layers": 1, "heads": 2, "kv_heads": 2, "intermediate_size": 16}


class SmallLSTM(Recurrent):
    def __init__(self, *, vocab_size: int = 11) -> None:
        super().__init__(vocab_size=vocab_size, embed_size=6, hidden_size=8, layers=1)
        self.config = {"vocab_size": vocab_size}


class Forgets(SmallLSTM):
    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        return super().forward(tokens, mask, None)


class ReadsPads(SmallLSTM):
    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        return super().forward(tokens, torch.ones_like(mask), state)


class SelectsTheFirst(SmallLSTM):
    def select(self, state: State, rows: Tensor) -> State:
        return super().select(state, torch.zeros_like(rows))


class RandomHead(SmallLSTM):
    def head(self, outputs: int) -> Any:
        return nn.Linear(6, outputs)


class LosesItsBias(SmallLSTM):
    def save(self, folder: Path) -> None:
        bias = self.bias.data.clone()
        self.bias.data.zero_()
        super().save(folder)
        self.bias.data.copy_(bias)


class ForgetsAnOption(SmallLSTM):
    def __init__(self, *, vocab_size: int = 11, sign: int = 1) -> None:
        super().__init__(vocab_size=vocab_size)
        self.sign = sign

    def unembed(self, hidden: Tensor) -> Tensor:
        return super().unembed(self.sign * hidden)


class DeadWeight(SmallLSTM):
    def __init__(self, *, vocab_size: int = 11) -> None:
        super().__init__(vocab_size=vocab_size)
        self.unused = nn.Parameter(torch.ones(1))


class Undecided(SmallLSTM):
    def __init__(self, *, vocab_size: int = 11) -> None:
        super().__init__(vocab_size=vocab_size)
        with torch.no_grad():
            self.bias[0] = next(MADE)


class SharesWithItsCopy(SmallLSTM):
    def __deepcopy__(self, memo: dict[int, Any]) -> SharesWithItsCopy:
        return self


class RebuildsNothing(SmallLSTM):
    def rebuilt_keys(self) -> frozenset[str]:
        return frozenset({"bias"})


class Aliases(Transformer):
    """Hands out the cache itself: whoever goes on from the selection goes on from the original too."""

    def __init__(self, *, vocab_size: int = 11) -> None:
        super().__init__(vocab_size=vocab_size, **TINY)
        self.config = {"vocab_size": vocab_size}

    def select(self, state: State, rows: Tensor) -> State:
        for layer in state.cache.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
        state.mask = None if state.mask is None else state.mask[rows]
        return state


class CountsPads(Aliases):
    """Positions go on counting where there is only a pad."""

    select = CausalLM.select

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        hidden, after = super().forward(tokens, mask, state)
        after.mask = None
        return hidden, after


class LooksAhead(NGram):
    def __init__(self, *, vocab_size: int = 11) -> None:
        super().__init__(vocab_size=vocab_size, n=2)
        self.config = {"vocab_size": vocab_size}

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        hidden, after = super().forward(tokens, mask, state)
        return hidden.roll(-1, 1), after


class StaysBehind(SmallLSTM):
    """Keeps what it computes with where no move finds it."""

    def __init__(self, *, vocab_size: int = 11) -> None:
        super().__init__(vocab_size=vocab_size)
        self.shift = [torch.ones(6)]

    def unembed(self, hidden: Tensor) -> Tensor:
        return super().unembed(hidden + hidden @ self.shift[0].diag())


class Dices(SmallLSTM):
    """Drops something in evaluation mode too."""

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        torch.rand(())
        return super().forward(tokens, mask, state)


class DividesByLength(SmallLSTM):
    """Takes a share of the tokens that a row has, which may be none."""

    def forward(self, tokens: Tensor, mask: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        hidden, after = super().forward(tokens, mask, state)
        length = mask.sum(-1, keepdim=True)[..., None] + self.bias[0] * 0
        return hidden * (length / length), after


BROKEN = {
    StaysBehind: "laws_hold_in_bfloat16",
    Dices: "reading_draws_nothing",
    DividesByLength: "a_row_of_pads_alone_harms_nobody",
    Forgets: "a_prefix_and_its_state_are_the_whole",
    LooksAhead: "a_prefix_and_its_state_are_the_whole",
    ReadsPads: "a_pad_leaves_no_trace",
    CountsPads: "a_pad_leaves_no_trace",
    SelectsTheFirst: "select_is_reading_those_rows",
    Aliases: "select_is_reading_those_rows",
    RandomHead: "a_head_starts_at_exactly_zero_and_learns",
    LosesItsBias: "save_and_load_give_the_same_backbone",
    ForgetsAnOption: "its_config_is_plain_and_builds_it_again",
    DeadWeight: "gradient_reaches_every_trainable_parameter",
    Undecided: "the_same_seed_gives_the_same_backbone",
    SharesWithItsCopy: "a_copy_is_a_backbone_of_its_own",
    RebuildsNothing: "a_checkpoint_without_rebuilt_keys_is_enough",
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_backbone_is_found_out(kind: type[Any], tmp_path: Path) -> None:
    class Suite(BackboneSuite):
        def make(self) -> Any:
            return kind(sign=-1) if kind is ForgetsAnOption else kind()

    law = getattr(Suite(), f"test_{BROKEN[kind]}")
    # the aliased cache ends with the selection's rows, which no longer fit the original's tokens
    with pytest.raises(RuntimeError if kind in (Aliases, StaysBehind) else AssertionError):
        law(tmp_path) if "save" in law.__name__ else law()


def test_a_sound_one_passes_the_same_laws(tmp_path: Path) -> None:
    class Suite(BackboneSuite):
        def make(self) -> Any:
            return SmallLSTM()

    for law in set(BROKEN.values()):
        test = getattr(Suite(), f"test_{law}")
        test(tmp_path) if "save" in law else test()


def test_the_message_names_the_law() -> None:
    with torch.no_grad(), pytest.raises(AssertionError, match="prefix of 1 tokens and the rest"):
        prefix_law(Forgets().eval(), 3, 1e-5)
