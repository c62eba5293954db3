"""Means over an epoch, and numbers of its rows, that survive a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from feedtune.distributed import gather_objects
from feedtune.experience import Experience


class EpochMetrics:
    """Weighted means of named numbers. NaN entries are left out.

    >>> metrics = EpochMetrics()
    >>> metrics.add({"loss": 1.0}, weight=1)
    >>> metrics.add({"loss": 4.0}, weight=2)
    >>> metrics.means()
    {'loss': 3.0}
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, values: Mapping[str, Tensor | float], weight: float = 1.0) -> None:
        """Count these values with a weight, such as the rows they are means of."""
        for name, value in values.items():
            # Stays on its device: a number that is fetched each step would stall a GPU.
            one = torch.as_tensor(value, dtype=torch.float64).detach()
            known = ~one.isnan()
            total, count = self._sums.get(name, (torch.zeros_like(one), torch.zeros_like(one)))
            self._sums[name] = (total + torch.where(known, one * weight, 0), count + known * weight)

    def means(self) -> dict[str, float]:
        """The means so far, over all ranks, sorted by name."""
        found: dict[str, list[float]] = {}
        for ranks in gather_objects(self.state_dict()):
            for name, (total, count) in ranks.items():
                entry = found.setdefault(name, [0.0, 0.0])
                entry[0] += total
                entry[1] += count
        return {name: t / n if n else float("nan") for name, (t, n) in sorted(found.items())}

    def peek(self, names: Iterable[str]) -> dict[str, float]:
        """This rank's means so far of those names that have any, in the order asked for."""
        found = {name: self._sums[name] for name in names if name in self._sums}
        return {name: float(total / count) for name, (total, count) in found.items() if count}

    def clear(self) -> None:
        """Begin a new epoch."""
        self._sums.clear()

    def state_dict(self) -> dict[str, list[float]]:
        """Plain numbers."""
        return {name: [float(total), float(count)] for name, (total, count) in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, list[float]]) -> None:
        """The inverse of `state_dict`."""
        self._sums = {
            name: (torch.tensor(total, dtype=torch.float64), torch.tensor(count, dtype=torch.float64))
            for name, (total, count) in state.items()
        }


class EpochRows:
    """The reward and the length, in action tokens, of every scored row of an epoch.

    >>> from feedtune.experience import from_rows
    >>> rows = EpochRows()
    >>> rows.add(from_rows([[5, 6, 7], [5, 8]], [[0, 1, 1], [0, 1]], scores=[1.0, float("nan")]))
    >>> rows.gathered()
    {'reward': [1.0], 'length': [2.0]}
    """

    def __init__(self) -> None:
        self._parts: list[Tensor] = []  # [2, rows] each

    def add(self, exp: Experience) -> None:
        """Count the rows of a collection."""
        both = torch.stack([exp.score.double(), exp.action.sum(-1).double()])
        self._parts.append(both[:, exp.scored].cpu())

    def gathered(self) -> dict[str, list[float]]:
        """The numbers of all ranks, by name. To be called on all of them."""
        ranks = [part for parts in gather_objects(self._parts) for part in parts]
        both = torch.cat(ranks, dim=1) if ranks else torch.empty(2, 0)
        return {"reward": both[0].tolist(), "length": both[1].tolist()}

    def clear(self) -> None:
        """Begin a new epoch."""
        self._parts.clear()

    def state_dict(self) -> list[Tensor]:
        """Plain tensors."""
        return list(self._parts)

    def load_state_dict(self, state: list[Tensor]) -> None:
        """The inverse of `state_dict`."""
        self._parts = list(state)
