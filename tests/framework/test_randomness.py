"""Randomness that a resumed run repeats."""

from __future__ import annotations

import io
import itertools
import random

import numpy as np
import pytest
import torch

from feedtune.randomness import generator_for, global_rng_state, set_global_rng_state


@pytest.fixture(autouse=True)
def _leave_no_trace() -> object:
    state = global_rng_state()
    yield
    set_global_rng_state(state)


def draws() -> list[float]:
    return [
        float(torch.rand(())),
        float(torch.randn(())),
        float(np.random.rand()),
        float(np.random.randn()),  # keeps half of a pair for the next call: that half is state too
        random.random(),
        random.gauss(0, 1),
    ]


def test_every_global_generator_goes_on_where_it_stood() -> None:
    draws()
    file = io.BytesIO()
    torch.save(global_rng_state(), file)  # in an odd place: numpy and random hold a cached normal number
    expected = draws() + draws()
    file.seek(0)
    set_global_rng_state(torch.load(file, weights_only=True))
    assert draws() + draws() == expected


def test_taking_the_state_draws_nothing() -> None:
    state = global_rng_state()
    once = draws()
    set_global_rng_state(state)
    global_rng_state()
    assert draws() == once


def test_generators_depend_on_every_number_and_on_their_order() -> None:
    keys = [key for length in (1, 2, 3, 4) for key in itertools.product((0, 1, 2), repeat=length)]
    first = [torch.randint(2**62, (), generator=generator_for(*key)).item() for key in keys]
    assert len(set(first)) == len(keys) == 3 + 9 + 27 + 81  # (1,), (1, 0) and (1, 0, 0) among them
    again = [torch.randint(2**62, (), generator=generator_for(*key)).item() for key in keys]
    assert again == first


def test_generators_leave_the_global_ones_alone() -> None:
    state = global_rng_state()
    expected = draws()
    set_global_rng_state(state)
    torch.rand(5, generator=generator_for(3, 4))
    assert draws() == expected


def test_large_seeds_are_welcome() -> None:
    assert generator_for(2**63 + 5, 1).initial_seed() != generator_for(5, 1).initial_seed()
