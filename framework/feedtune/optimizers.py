"""Which optimisers of torch cannot train a policy, and which options of its parts one reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import optim

from feedtune.errors import UserError, nearest

REFUSED = {
    optim.LBFGS: "it asks for a minibatch's loss several times a step, which is counted and guarded once",
    optim.SparseAdam: "it takes sparse gradients alone, and those of a policy are dense; try optimizer=adam",
}
"""Optimisers that would be built, and then fail or count wrongly. Muon itself refuses what is no matrix."""

LEFT_OUT = {
    **{kind.__name__.lower(): why for kind, why in REFUSED.items()},
    "muon": "it trains matrices alone, and other weights a policy has almost always",
}
"""Why an optimiser of torch is no option, by the name that it would have."""


def refuse_unfit(optimizer: optim.Optimizer) -> None:
    """Refuse an optimiser that could not train a policy.

    Raises:
        UserError: naming it, and why.

    >>> import torch
    >>> refuse_unfit(optim.SGD([torch.nn.Parameter(torch.zeros(2))]))
    """
    for kind, why in REFUSED.items():
        if isinstance(optimizer, kind):
            raise UserError(f"optimizer: {kind.__name__} cannot train a policy: {why}")


def check_optimizer(optimizer: optim.Optimizer, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse an optimiser that is unfit, and options of parts of the policy that it would never read.

    Args:
        optimizer: over the policy's parts.
        options: of each part, by its name: `parameter_groups`.

    Raises:
        UserError: naming the optimiser, or the key.
    """
    refuse_unfit(optimizer)
    for part, chosen in options.items():
        for name in chosen:
            if name not in optimizer.defaults:
                known = ", ".join(optimizer.defaults)
                raise UserError(
                    f"parameter_groups.{part}.{name}: {type(optimizer).__name__} has no such option."
                    f"{nearest(name, optimizer.defaults)} It has: {known}"
                )
