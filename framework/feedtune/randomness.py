"""Randomness that a resumed run repeats.

What can have its own generator has one, seeded by what it is for and where in the run it stands; the
global generators (dropout, third-party code) are saved and restored whole.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def generator_for(*key: int) -> torch.Generator:
    """A CPU generator that depends on these numbers only, such as (seed, collection, rank, purpose).

    >>> torch.rand(1, generator=generator_for(1, 2)) == torch.rand(1, generator=generator_for(1, 2))
    tensor([True])
    """
    # The length goes in first: SeedSequence fills up with zeros and would take (1, 2) for (1, 2, 0).
    state = np.random.SeedSequence((len(key), *key)).generate_state(1, dtype=np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def global_rng_state() -> dict[str, Any]:
    """The state of every global generator, in plain types."""
    numpy_state: dict[str, Any] = np.random.get_state(legacy=False)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {**numpy_state, "state": _keys_as_tensor(numpy_state["state"])},
        "python": [version, list(internal), gauss],
    }


def set_global_rng_state(state: dict[str, Any]) -> None:
    """The inverse of `global_rng_state`."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    numpy_state = dict(state["numpy"])
    keys = numpy_state["state"]["key"].cpu().numpy().astype(np.uint32)
    np.random.set_state({**numpy_state, "state": {**numpy_state["state"], "key": keys}})
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


def _keys_as_tensor(state: dict[str, Any]) -> dict[str, Any]:
    """A tensor loads with `weights_only=True`; an array does not."""
    return {"pos": int(state["pos"]), "key": torch.from_numpy(state["key"].astype(np.int64))}
