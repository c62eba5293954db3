"""The items of state in a checkpoint, by name, and how each is made wrong."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

Path = tuple[Any, ...]

NAMES: list[tuple[str, str]] = [
    # (pattern of a path, the item it belongs to); the first that fits
    (r"state_dict/policy\..*", "weights"),
    (r"state_dict/reference\..*", r"reference"),
    (r"state_dict/(algorithm\.target)\.(backbone|heads)\..*", r"\1 network"),
    (r"state_dict/(.*)", r"\1"),
    (r"optimizer_states/\d+/state/\d+/(\w+)", r"optimizer \1"),
    (r"optimizer_states/\d+/param_groups/\d+/lr", r"learning rate"),
    (r"optimizer_states/\d+/param_groups/.*", r"optimizer settings"),
    (r"lr_schedulers/\d+/(base_lrs|last_epoch).*", r"scheduler \1"),
    (r"lr_schedulers/.*", r"scheduler otherwise"),
    (r"loops/fit_loop/(epoch_progress|epoch_loop\.batch_progress)/.*", r"loop \1"),
    (r"loops/fit_loop/epoch_loop\.automatic_optimization\.(optim_progress)/.*", r"loop \1"),
    (r"loops/.*", r"loops otherwise"),
    (r"feedtune/ranks/\d+/loader/(\w+).*", r"loader \1"),
    (r"feedtune/ranks/\d+/rng/(\w+).*", r"rng \1"),
    (r"feedtune/ranks/\d+/(stopwatch)/collected", r"\1 tokens"),
    (r"feedtune/ranks/\d+/(\w+).*", r"\1"),
    (r"callbacks/(\w+)[^/]*/(\w+).*", r"callback \1 \2"),
    (r"([^/]+).*", r"\1"),
]


def items(state: dict[str, Any]) -> dict[str, list[Path]]:
    """Every leaf of a checkpoint under the item that it belongs to."""
    found: dict[str, list[Path]] = {}
    for path in _leaves(state, ()):
        found.setdefault(_name("/".join(map(str, path))), []).append(path)
    return found


def _name(path: str) -> str:
    for pattern, name in NAMES:
        match = re.fullmatch(pattern, path, re.DOTALL)
        if match:
            return match.expand(name)
    raise AssertionError(path)


def _leaves(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, dict | list) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in pairs:
            yield from _leaves(one, (*path, key))
    else:
        yield path


def spoiled(state: dict[str, Any], item: str) -> dict[str, Any]:
    """A copy of a checkpoint in which one item is another, of the same kind."""
    state = copy.deepcopy(state)
    change = SPECIAL.get(item, _other)
    for path in items(state)[item]:
        home = state
        for key in path[:-1]:
            home = home[key]
        home[path[-1]] = change(home[path[-1]])
    return state


def _other(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            return value + 0.1 + 0.1 * value.abs()
        return ~value if value.dtype == torch.bool else value + 1
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, tuple):
        return tuple(map(_other, value))
    return f"{value}!" if isinstance(value, str) else value


def _other_numbers(value: Any) -> Any:
    """Of a buffer: what rows bring along; tokens and masks would be none with other values."""
    return _other(value) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _other_settings(value: Any) -> Any:
    """Of an optimiser: its numbers. Its switches say which state there has to be."""
    if isinstance(value, tuple):
        return tuple(map(_other_settings, value))
    return value / 2 if isinstance(value, float) else value


def _other_version(value: str) -> str:
    """Newer than all, so that Lightning takes the state as it is."""
    return "999.0"


def _other_torch_state(value: torch.Tensor) -> torch.Tensor:
    return torch.Generator().manual_seed(12345).get_state()


def _next_word(value: Any) -> Any:
    """Of Mersenne twisters: whole numbers of 32 bits, some of which count."""
    if isinstance(value, torch.Tensor):
        return (value + 1) % 2**32
    return (value + 1) % 624 if isinstance(value, int) and value > 624 else value


SPECIAL: dict[str, Callable[[Any], Any]] = {
    "loader buffer": _other_numbers,
    "optimizer settings": _other_settings,
    "pytorch-lightning_version": _other_version,
    "rng torch": _other_torch_state,
    "rng numpy": _next_word,
    "rng python": _next_word,
}
