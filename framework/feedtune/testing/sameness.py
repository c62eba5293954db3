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
