"""The laws of `Backbone` as a suite for pytest to subclass; as functions they are in `backbone_laws`.

A plugin's test module is four lines:

    class TestMine(BackboneSuite):
        def make(self) -> Backbone:
            return Mine(vocab_size=50)
"""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from feedtune.contracts import Backbone
from feedtune.testing.backbone_laws import (
    device_of,
    equal_backbones,
    go_on,
    gradient_law,
    gradients,
    nudged,
    padded,
    pads_law,
    prefix_law,
    random_rows,
    read,
    same,
    select_law,
)
from feedtune.testing.suite import Suite, require, seeded, untouched_randomness

__all__ = [
    "AdapterSuite",
    "BackboneSuite",
    "device_of",
    "equal_backbones",
    "gradient_law",
    "gradients",
    "nudged",
    "padded",
    "pads_law",
    "prefix_law",
    "random_rows",
    "read",
    "select_law",
]


class BackboneSuite(Suite):
    """Every law over one backbone; subclass it in a test module and say how to make one."""

    group: ClassVar[str] = "backbone"

    vocab_size = 61
    """Tokens of the backbones that are built from a YAML."""

    tolerance = 1e-5  # of float32
    double_tolerance = 1e-10  # of float64; more where a part of the backbone computes in float32 always
    autocast_tolerance = 5e-2  # bfloat16 keeps three digits
    half_tolerance = 5e-2  # of weights in bfloat16
    gpu_tolerance = 1e-3  # of float32, whose products a GPU may round

    @abstractmethod
    def make(self) -> Backbone:
        """A fresh backbone, from the global random generator."""

    def built(self) -> Backbone:
        """One with weights as after some training, in eval mode."""
        torch.manual_seed(0)
        return nudged(self.make())

    def given(self) -> dict[str, Any]:
        return {"vocab_size": self.vocab_size}

    @classmethod
    def fitted(cls) -> tuple[type[Suite], str]:
        if cls().make().adapter_off is None or issubclass(cls, AdapterSuite):
            return cls, ""
        return type(cls.__name__, (cls, AdapterSuite), {}), "trains an adapter on frozen weights"

    def probe(self, made: Backbone) -> Any:
        """Hidden states and logits, in both modes; which weights are trained, and the room it has."""
        rows = random_rows(made, [5, 9])
        found: list[Any] = [made.context_length, sorted(_trainable(made)), made.adapter_off is not None]
        for mode in (True, False):
            made.train(mode)
            with seeded(0), torch.no_grad():
                hidden = [read(made, row) for row in rows]
                found += [*hidden, *(made.unembed(one) for one in hidden)]
        return found

    def test_a_prefix_and_its_state_are_the_whole(self) -> None:
        with torch.no_grad():
            prefix_law(self.built(), 7, self.tolerance)

    def test_laws_hold_in_float64(self) -> None:
        with torch.no_grad():
            backbone = self.built().double()
            prefix_law(backbone, 5, self.double_tolerance)
            pads_law(backbone, [[3, 1, 0], [2, 0, 4]], [[0, 2, 1], [1, 0, 0]], self.double_tolerance)
            assert backbone.unembed(read(backbone, random_rows(backbone, [2])[0])).dtype == torch.float64

    def test_laws_hold_under_bfloat16_autocast(self) -> None:
        backbone = self.built()
        with torch.no_grad(), torch.autocast(device_of(backbone).type, torch.bfloat16):
            prefix_law(backbone, 5, self.autocast_tolerance)
            pads_law(backbone, [[3, 1, 0], [2, 0, 4]], [[0, 2, 1], [1, 0, 0]], self.autocast_tolerance)
            select_law(backbone, [1, 0, 1], [2, 0], self.autocast_tolerance)

    def test_laws_hold_in_bfloat16(self) -> None:
        """Weights moved to half precision: nothing that it computes with stays behind."""
        with torch.no_grad():
            backbone = self.built()
            row = random_rows(backbone, [6])[0]
            expected = backbone.unembed(read(backbone, row)).softmax(-1)
            half = backbone.bfloat16()
            prefix_law(half, 5, self.half_tolerance)
            select_law(half, [1, 0, 1], [2, 0], self.half_tolerance)
            found = half.unembed(read(half, row)).float().softmax(-1)
            same(found, expected.float(), self.half_tolerance, "probabilities in bfloat16")

    def test_laws_hold_on_a_gpu(self) -> None:
        if not torch.cuda.is_available():
            return self.inapplicable("there is no CUDA device here")
        with torch.no_grad():
            backbone = self.built()
            row = random_rows(backbone, [6])[0]
            expected = backbone.unembed(read(backbone, row))
            there = backbone.to("cuda")
            found = there.unembed(read(there, row.to("cuda"))).cpu()
            same(found, expected, self.gpu_tolerance, "logits on a GPU")
            prefix_law(there, 5, self.gpu_tolerance)
            pads_law(there, [[3, 1, 0], [2, 0, 4]], [[0, 2, 1], [1, 0, 0]], self.gpu_tolerance)
            select_law(there, [1, 0, 1], [2, 0], self.gpu_tolerance)
        return None

    def test_reading_draws_nothing(self) -> None:
        """In evaluation mode the same row reads the same, and no random number is drawn."""
        backbone = self.built()
        row = random_rows(backbone, [5])[0]
        with torch.no_grad(), untouched_randomness():
            first, again = read(backbone, row), read(backbone, row)
        same(again, first, 0.0, "the same row read again")

    def test_a_row_of_pads_alone_harms_nobody(self) -> None:
        """Such rows wait beside others: nothing of them is NaN, in either direction."""
        backbone = self.built()
        rows = random_rows(backbone, [0, 4])
        found = gradients(backbone, *padded(backbone, rows, left=[0, 1]))
        alone = gradients(backbone, rows[1][None], torch.ones(1, 4, dtype=torch.bool, device=rows[1].device))
        for name, gradient in found.items():
            require(
                bool(gradient.isfinite().all()), f"the gradient of {name} is NaN beside a row of pads alone"
            )
            same(gradient, alone[name], 20 * self.tolerance, f"gradient of {name} beside a row of pads alone")

    def test_a_pad_leaves_no_trace(self) -> None:
        with torch.no_grad():
            backbone = self.built()
            pads_law(backbone, [[4, 2, 3]], [[0, 0, 0]], self.tolerance)  # after
            pads_law(backbone, [[4, 2, 3]], [[0, 2, 1]], self.tolerance)  # before
            pads_law(backbone, [[4, 2, 0, 1], [0, 3, 2, 1]], [[0, 3, 1, 1], [2, 0, 1, 0]], self.tolerance)
            pads_law(backbone, [[3, 1], [1, 1], [2, 4]], [[0, 0], [0, 0], [0, 1]], self.tolerance)

    def test_select_is_reading_those_rows(self) -> None:
        with torch.no_grad():
            backbone = self.built()
            select_law(backbone, [0, 0, 1, 1, 2, 2], [0, 0, 0], self.tolerance)  # a group for each prompt
            select_law(backbone, [3, 1], [1, 0, 3, 2], self.tolerance)  # finished rows leave
            select_law(backbone, [2, 0, 1], [0, 2, 0], self.tolerance)

    def test_a_selection_can_be_selected_from(self) -> None:
        with torch.no_grad():
            backbone = self.built()
            rows = torch.stack(random_rows(backbone, [6, 6]))
            _, state = backbone(rows[:, :3], torch.ones_like(rows[:, :3], dtype=torch.bool))
            both = backbone.select(state, torch.tensor([1, 0, 1], device=rows.device))
            one = backbone.select(both, torch.tensor([1], device=rows.device))
            found = go_on(backbone, rows[:1, 3:], one)
            same(found[0], read(backbone, rows[0])[3:], self.tolerance, "row 0 by way of two selections")

    def test_gradient_reaches_every_trainable_parameter(self) -> None:
        gradient_law(self.built(), 20 * self.tolerance)

    def test_unembed_works_on_any_leading_shape(self) -> None:
        backbone = self.built()
        hidden = read(backbone, random_rows(backbone, [4])[0])
        logits = backbone.unembed(hidden)
        assert logits.shape == (4, backbone.vocab_size)
        assert logits.is_floating_point()
        same(backbone.unembed(hidden[1]), logits[1], self.tolerance, "one position")
        same(backbone.unembed(hidden.view(2, 2, -1)).view(4, -1), logits, self.tolerance, "[2, 2, H]")

    def test_a_head_starts_at_exactly_zero_and_learns(self) -> None:
        backbone = self.built()
        hidden = read(backbone, random_rows(backbone, [4])[0]).detach()
        random = torch.get_rng_state()
        head = backbone.head(2)
        assert torch.equal(random, torch.get_rng_state()), "a head draws random numbers"
        out = head(hidden)
        assert out.shape == (4, 2)
        assert out.dtype == torch.float32
        assert torch.count_nonzero(out) == 0
        out.sum().backward()
        assert any(bool((weight.grad != 0).any()) for weight in head.parameters() if weight.grad is not None)

    def test_save_and_load_give_the_same_backbone(self, tmp_path: Path) -> None:
        backbone = self.built()
        backbone.save(tmp_path)
        loaded = type(backbone).load(tmp_path, backbone.config)
        equal_backbones(loaded, backbone)
        assert loaded.config == backbone.config
        assert _trainable(loaded) == _trainable(backbone)

    def test_its_config_is_plain_and_builds_it_again(self) -> None:
        torch.manual_seed(3)
        backbone = self.make()
        assert json.loads(json.dumps(backbone.config)) == backbone.config
        torch.manual_seed(3)
        again = type(backbone)(**backbone.config)
        assert again.config == backbone.config
        equal_backbones(again, backbone)
        assert again.context_length == backbone.context_length

    def test_a_checkpoint_without_rebuilt_keys_is_enough(self) -> None:
        backbone = self.built()
        weights, rebuilt = backbone.state_dict(), backbone.rebuilt_keys()
        assert rebuilt <= weights.keys()
        again = type(backbone)(**backbone.config)
        kept = {name: weight for name, weight in weights.items() if name not in rebuilt}
        missing, unexpected = again.load_state_dict(kept, strict=False)
        assert set(missing) == rebuilt
        assert not unexpected
        equal_backbones(again, backbone)

    def test_the_same_seed_gives_the_same_backbone(self) -> None:
        torch.manual_seed(5)
        first = self.make()
        assert first.training, "a backbone is made in training mode, as any module is"
        torch.manual_seed(5)
        second = self.make()
        equal_backbones(first, second)

    def test_a_copy_is_a_backbone_of_its_own(self) -> None:
        backbone = self.built()
        row = random_rows(backbone, [4])[0]
        before = backbone.unembed(read(backbone, row)).detach()
        clone = copy.deepcopy(backbone)
        equal_backbones(clone, backbone)
        with torch.no_grad():
            for weight in clone.parameters():
                weight.add_(1.0)
        same(backbone.unembed(read(backbone, row)), before, 0.0, "logits after the copy's weights moved")
        assert not torch.equal(clone.unembed(read(clone, row)), before), "the copy's weights are not its own"


class AdapterSuite(BackboneSuite):
    """The laws of a backbone that trains an adapter on frozen weights, on top of all others."""

    def test_with_the_adapter_off_it_is_where_it_started(self) -> None:
        torch.manual_seed(0)
        fresh = self.make()
        row = random_rows(fresh, [4])[0]
        moved, start = nudged(fresh), read(fresh.eval(), row)
        assert moved.adapter_off is not None
        with moved.adapter_off():
            assert torch.equal(read(moved, row), start)
        assert not torch.equal(read(moved, row), start), "the adapter changes nothing"

    def test_checkpoints_hold_what_is_trained_and_nothing_else(self) -> None:
        backbone = self.make()
        kept = backbone.state_dict().keys() - backbone.rebuilt_keys()
        assert sorted(kept) == sorted(_trainable(backbone))


def _trainable(module: nn.Module) -> list[str]:
    return [name for name, weight in module.named_parameters() if weight.requires_grad]
