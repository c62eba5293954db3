"""The laws of `Backbone`, as functions over any backbone and as a suite for pytest to subclass.

A plugin's test module is four lines:

    class TestMine(BackboneSuite):
        def make(self) -> Backbone:
            return Mine(vocab_size=50)

Rows here are ragged token lists; pads carry random tokens, so that one who looks at them is found out.
"""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from feedtune.contracts import Backbone, State
from feedtune.testing.suite import Suite, require, seeded, untouched_randomness

Row = Tensor  # [length] int64
Pads = tuple[int, int]  # columns before and after the real tokens


def random_rows(backbone: Backbone, lengths: Sequence[int], seed: int = 0) -> list[Row]:
    """Rows of so many random tokens."""
    random = torch.Generator().manual_seed(seed)
    device = device_of(backbone)
    return [torch.randint(backbone.vocab_size, (n,), generator=random).to(device) for n in lengths]


def device_of(backbone: Backbone) -> torch.device:
    """Where its weights are."""
    return next(backbone.parameters()).device


def padded(backbone: Backbone, rows: Sequence[Row], left: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Tokens and mask `[B, T]`: so many pads before each row, and as many after it as fill the width.

    >>> class Ten:
    ...     vocab_size = 10
    ...     parameters = staticmethod(lambda: iter([torch.zeros(1)]))
    >>> padded(Ten(), [torch.tensor([1, 2]), torch.tensor([3])], left=[0, 2])[1]
    tensor([[ True,  True, False],
            [False, False,  True]])
    """
    width = max((before + len(row) for before, row in zip(left, rows, strict=True)), default=0) or 1
    tokens = torch.stack(random_rows(backbone, [width] * len(rows), seed=99))
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for i, (before, row) in enumerate(zip(left, rows, strict=True)):
        tokens[i, before : before + len(row)] = row
        mask[i, before : before + len(row)] = True
    return tokens, mask


def nudged(backbone: Backbone) -> Backbone:
    """A copy in eval mode whose trainable weights are a little off, as after training.

    Tables and adapters start at 0, where a wrong law would look right.
    """
    moved = copy.deepcopy(backbone).eval()
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in moved.parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape, generator=random)
                weight.add_(0.02 * noise.to(weight.device, weight.dtype))
    return moved


def read(backbone: Backbone, row: Row) -> Tensor:
    """Hidden states `[length, H]` of a row that is read alone, in one piece: what all laws compare with."""
    hidden: Tensor = backbone(row[None], torch.ones_like(row[None], dtype=torch.bool))[0]
    return hidden[0]


def prefix_law(backbone: Backbone, length: int, tolerance: float) -> None:
    """Reading k tokens and then the rest from the state is reading the row, for every k."""
    rows = torch.stack(random_rows(backbone, [length] * 3))
    mask = torch.ones_like(rows, dtype=torch.bool)
    whole, _ = backbone(rows, mask)
    for k in range(1, length):
        first, state = backbone(rows[:, :k], mask[:, :k])
        rest, _ = backbone(rows[:, k:], mask[:, k:], state)
        _same(torch.cat([first, rest], 1), whole, tolerance, f"prefix of {k} and its state")


def pads_law(
    backbone: Backbone, chunks: Sequence[Sequence[int]], left: Sequence[Sequence[int]], tolerance: float
) -> None:
    """Rows read in chunks, each with pads before and after, are the rows read alone; nothing is NaN.

    Args:
        backbone: the one under test.
        chunks: real tokens of each row (inner) in each chunk (outer); 0 is a row that waits.
        left: pads before each row in each chunk.
        tolerance: largest difference.
    """
    count = len(chunks[0])
    rows = random_rows(backbone, [sum(chunk[b] for chunk in chunks) for b in range(count)])
    alone = [read(backbone, row) if len(row) else None for row in rows]
    done, state = [0] * count, None
    for number, (lengths, before) in enumerate(zip(chunks, left, strict=True)):
        parts = [row[start : start + n] for row, start, n in zip(rows, done, lengths, strict=True)]
        tokens, mask = padded(backbone, parts, before)
        hidden, state = backbone(tokens, mask, state)
        assert bool(torch.isfinite(backbone.unembed(hidden)).all()), f"chunk {number}: NaN or inf at a pad"
        for b, whole in enumerate(alone):
            if whole is not None:
                expected = whole[done[b] : done[b] + lengths[b]]
                _same(hidden[b, mask[b]], expected, tolerance, f"row {b} in chunk {number}")
        done = [start + n for start, n in zip(done, lengths, strict=True)]


def select_law(backbone: Backbone, rows: Sequence[int], left: Sequence[int], tolerance: float) -> None:
    """`select` is what reading only those rows gives, and leaves the state it copied from as it was.

    Args:
        backbone: the one under test.
        rows: which of the read rows to keep, in which order.
        left: pads before each of the rows that are read, one number a row.
        tolerance: largest difference.
    """
    count, kept = len(left), torch.tensor(rows, device=device_of(backbone))
    texts = random_rows(backbone, [2 + b % 3 for b in range(count)])
    more = torch.stack(random_rows(backbone, [3] * count, seed=1))
    tokens, mask = padded(backbone, texts, left)
    whole = [read(backbone, torch.cat([text, tail]))[-3:] for text, tail in zip(texts, more, strict=True)]
    _, state = backbone(tokens, mask)
    chosen = backbone.select(state, kept)
    found = _go_on(backbone, more[kept], chosen)  # consumes the copy only
    for place, b in enumerate(rows):
        _same(found[place], whole[b], tolerance, f"selected row {b}")
    untouched = _go_on(backbone, more, state)
    for b in range(count):
        _same(untouched[b], whole[b], tolerance, f"row {b} of the state that was selected from")


def _go_on(backbone: Backbone, tokens: Tensor, state: State) -> Tensor:
    """Hidden states of tokens that are read one by one, as a sampler does."""
    parts = []
    for t in range(tokens.shape[1]):
        column = tokens[:, t : t + 1]
        hidden, state = backbone(column, torch.ones_like(column, dtype=torch.bool), state)
        parts.append(hidden)
    return torch.cat(parts, 1)


def gradients(backbone: Backbone, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Gradient of the summed log-probability of each next real token, by name of the parameter."""
    backbone.zero_grad()
    hidden, _ = backbone(tokens, mask)
    logp = backbone.unembed(hidden[:, :-1]).float().log_softmax(-1)
    chosen = logp.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    torch.where(mask[:, :-1] & mask[:, 1:], chosen, torch.zeros(())).sum().backward()  # type: ignore[no-untyped-call]
    named = {name: weight.grad for name, weight in backbone.named_parameters() if weight.requires_grad}
    missing = [name for name, grad in named.items() if grad is None]
    assert not missing, f"no gradient reaches {missing}"
    return {name: grad.clone() for name, grad in named.items() if grad is not None}


def gradient_law(backbone: Backbone, tolerance: float) -> None:
    """Gradient reaches every trainable parameter, and a pad leaves no trace in it either."""
    rows = random_rows(backbone, [6, 4, 5])
    found = gradients(backbone, *padded(backbone, rows, left=[0, 2, 1]))
    alone = [gradients(backbone, row[None], torch.ones_like(row[None], dtype=torch.bool)) for row in rows]
    for name, grad in found.items():
        assert grad.abs().max() > 0, f"the gradient of {name} is 0 everywhere"
        _same(grad, sum(part[name] for part in alone), tolerance, f"gradient of {name}")


def equal_backbones(found: Backbone, expected: Backbone, tolerance: float = 0.0) -> None:
    """Both say the same about the same rows."""
    rows = random_rows(expected, [5, 3])
    for row in rows:
        hidden, other = read(found.eval(), row), read(expected.eval(), row)
        _same(hidden, other, tolerance, "hidden states")
        _same(found.unembed(hidden), expected.unembed(other), tolerance, "logits")


def _same(found: Tensor, expected: Tensor | int, tolerance: float, what: str) -> None:
    assert isinstance(expected, Tensor)
    if not expected.is_floating_point():
        tolerance = 0.0
    assert_close(found, expected, atol=tolerance, rtol=tolerance, msg=lambda text: f"{what}: {text}")


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
        """Hidden states and logits, in evaluation and in training mode, how weights are kept, the room it has."""
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
            _same(found, expected.float(), self.half_tolerance, "probabilities in bfloat16")

    def test_laws_hold_on_a_gpu(self) -> None:
        if not torch.cuda.is_available():
            return self.inapplicable("there is no CUDA device here")
        with torch.no_grad():
            backbone = self.built()
            row = random_rows(backbone, [6])[0]
            expected = backbone.unembed(read(backbone, row))
            there = backbone.to("cuda")
            found = there.unembed(read(there, row.to("cuda"))).cpu()
            _same(found, expected, self.gpu_tolerance, "logits on a GPU")
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
        _same(again, first, 0.0, "the same row read again")

    def test_a_row_of_pads_alone_harms_nobody(self) -> None:
        """Such rows wait beside others: nothing of them is NaN, in either direction."""
        backbone = self.built()
        rows = random_rows(backbone, [0, 4])
        found = gradients(backbone, *padded(backbone, rows, left=[0, 1]))
        alone = gradients(backbone, rows[1][None], torch.ones(1, 4, dtype=torch.bool, device=rows[1].device))
        for name, gradient in found.items():
            require(bool(gradient.isfinite().all()), f"the gradient of {name} is NaN beside a row of pads alone")
            _same(gradient, alone[name], 20 * self.tolerance, f"gradient of {name} beside a row of pads alone")

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
            found = _go_on(backbone, rows[:1, 3:], one)
            _same(found[0], read(backbone, rows[0])[3:], self.tolerance, "row 0 by way of two selections")

    def test_gradient_reaches_every_trainable_parameter(self) -> None:
        gradient_law(self.built(), 20 * self.tolerance)

    def test_unembed_works_on_any_leading_shape(self) -> None:
        backbone = self.built()
        hidden = read(backbone, random_rows(backbone, [4])[0])
        logits = backbone.unembed(hidden)
        assert logits.shape == (4, backbone.vocab_size)
        assert logits.is_floating_point()
        _same(backbone.unembed(hidden[1]), logits[1], self.tolerance, "one position")
        _same(backbone.unembed(hidden.view(2, 2, -1)).view(4, -1), logits, self.tolerance, "[2, 2, H]")

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
        _same(backbone.unembed(read(backbone, row)), before, 0.0, "logits after the copy's weights moved")
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
