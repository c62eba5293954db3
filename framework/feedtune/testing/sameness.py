"""Whether two nested values are the same: what laws compare, whatever a plugin is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def alike(found: Any, expected: Any, within: float = 0.0) -> bool:
    """Whether nested plain values, tensors and dataclasses are the same; NaN is the same as NaN.

    Args:
        found, expected: what is compared.
        within: most by which numbers in tensors may differ, and share of them, for what was rounded.

    >>> alike({"a": torch.tensor([1.0, float("nan")])}, {"a": torch.tensor([1.0, float("nan")])})
    True
    >>> alike(torch.tensor([1.0]), torch.tensor([1])), alike([1.0], [1.1]), alike({"a": 1}, {"b": 1})
    (False, False, False)
    """
    ours, theirs = list(_leaves(found)), list(_leaves(expected))
    return len(ours) == len(theirs) and all(
        _same_leaf(a, b, within) for a, b in zip(ours, theirs, strict=True)
    )


def close(found: Tensor, expected: Tensor, within: float, what: str, relative: float | None = None) -> None:
    """Require tensors to be the same up to rounding, and say in one sentence where they are not.

    Args:
        found, expected: of one shape, type and device; NaN is the same as NaN nowhere but in both.
        within: most by which entries may differ.
        what: is compared, for the message.
        relative: share of an entry that is allowed on top; by default `within`.

    Raises:
        AssertionError: with the largest difference, its place and the tolerance.

    >>> close(torch.tensor([[1.0, 2.5]]), torch.tensor([[1.0, 2.0]]), 0.1, "row 3")
    Traceback (most recent call last):
    AssertionError: row 3: the largest difference is 0.5 at [0, 1] (2.5, expected 2), the tolerance 0.1
    """
    for name in ("shape", "dtype", "device"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        if ours != theirs:
            shown = (list(ours), list(theirs)) if name == "shape" else (ours, theirs)
            raise AssertionError(f"{what}: {name} {shown[0]}, expected {shown[1]}")
    a, b = found.detach().double(), expected.detach().double()
    share = within if relative is None else relative
    right = torch.isclose(a, b, rtol=share, atol=within, equal_nan=True)
    if bool(right.all()):
        return
    gaps = torch.where(right, -1.0, (a - b).abs().nan_to_num(nan=torch.inf))
    place = [int(one) for one in torch.unravel_index(gaps.argmax(), gaps.shape)]
    where, pair = (f" at {place}" if place else ""), (float(a[tuple(place)]), float(b[tuple(place)]))
    raise AssertionError(
        f"{what}: the largest difference is {abs(pair[0] - pair[1]):.3g}{where} ({pair[0]:.6g}, expected "
        f"{pair[1]:.6g}), the tolerance {within:g}"
    )


def _same_leaf(found: Any, expected: Any, within: float) -> bool:
    if not (isinstance(found, Tensor) and isinstance(expected, Tensor)):
        return type(found) is type(expected) and bool(found == expected)
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    if not within or not found.is_floating_point():
        both_nan = (found != found) & (expected != expected)
        return bool(((found == expected) | both_nan).all())
    return torch.allclose(found, expected, rtol=within, atol=within, equal_nan=True)


def _leaves(value: Any) -> Iterator[Tensor | str]:
    """What a nested value is made of, in a fixed order."""
    if isinstance(value, Tensor):
        yield value.detach().cpu()
    elif isinstance(value, np.ndarray):
        yield torch.as_tensor(value)
    elif isinstance(value, float):
        yield torch.tensor(value, dtype=torch.float64)
    elif isinstance(value, Mapping):
        yield f"mapping of {sorted(map(repr, value))}"
        for name in sorted(value, key=repr):
            yield from _leaves(value[name])
    elif is_dataclass(value) and not isinstance(value, type):
        yield type(value).__name__
        yield from _leaves({field.name: getattr(value, field.name) for field in fields(value)})
    elif isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        entries = value if isinstance(value, Sequence) else sorted(value, key=repr)
        yield f"{len(value)} entries"
        for one in entries:
            yield from _leaves(one)
    else:
        yield repr(value)
