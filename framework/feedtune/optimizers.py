"""Which optimisers of torch cannot train a policy, and why."""

from __future__ import annotations

from torch import optim

from feedtune.errors import UserError

REFUSED = {
    optim.LBFGS: "it asks for a minibatch's loss several times a step, which is counted and guarded once",
    optim.SparseAdam: "it takes sparse gradients alone, and those of a policy are dense; try optimizer=adam",
}
"""Optimisers that would be built, and then fail or count wrongly. Muon itself refuses what is no matrix."""


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
