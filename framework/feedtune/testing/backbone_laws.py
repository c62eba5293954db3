"""The laws of `Backbone` as functions over any backbone.

Rows here are ragged token lists; pads carry random tokens, so that one who looks at them is found out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from feedtune.contracts import Backbone, State
from feedtune.testing.sameness import close

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
        for b, row in enumerate(torch.cat([first, rest], 1)):
            same(row, whole[b], tolerance, f"row {b} read as a prefix of {k} tokens and the rest")


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
                same(hidden[b, mask[b]], expected, tolerance, f"row {b} in chunk {number}")
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
    found = go_on(backbone, more[kept], chosen)  # consumes the copy only
    for place, b in enumerate(rows):
        same(found[place], whole[b], tolerance, f"selected row {b}")
    untouched = go_on(backbone, more, state)
    for b in range(count):
        same(untouched[b], whole[b], tolerance, f"row {b} of the state that was selected from")


def go_on(backbone: Backbone, tokens: Tensor, state: State) -> Tensor:
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
        same(grad, sum(part[name] for part in alone), tolerance, f"gradient of {name}")


def equal_backbones(found: Backbone, expected: Backbone, tolerance: float = 0.0) -> None:
    """Both say the same about the same rows."""
    rows = random_rows(expected, [5, 3])
    for row in rows:
        hidden, other = read(found.eval(), row), read(expected.eval(), row)
        same(hidden, other, tolerance, "hidden states")
        same(found.unembed(hidden), expected.unembed(other), tolerance, "logits")


def same(found: Tensor, expected: Tensor | int, tolerance: float, what: str) -> None:
    assert isinstance(expected, Tensor)
    close(found, expected, tolerance if expected.is_floating_point() else 0.0, what)
