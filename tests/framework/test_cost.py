"""What a small rollout and update cost, counted: tokens read, calls of the backbone, bytes made.

Clocks are noisy, counts are not. Whoever changes a number here changes the speed (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from feedtune.completion import complete
from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.contracts import Backbone
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune.references import FrozenCopy
from feedtune.sampling import sample

PROMPTS = [[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]]
LENGTHS = [2, 2, 3, 40, 2, 3, 3, 38]  # of four responses to each prompt: 93 tokens, six short rows, two long


class Bytes(TorchDispatchMode):
    """Adds up the sizes of all tensors that come into being; views and changes in place are none."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        given = {_storage(tensor) for tensor in _tensors((args, kwargs))}
        self.made += sum(tensor.nbytes for tensor in _tensors(found) if _storage(tensor) not in given)
        return found


def _tensors(tree: Any) -> list[Tensor]:
    """Those with a storage of their own; packed weights have none that can be seen."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and not leaf.is_mkldnn]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Counted:
    """A policy whose backbone's calls are noted."""

    def __init__(self, backbone: Backbone) -> None:
        self.policy = Policy(backbone)
        self.calls: list[tuple[int, ...]] = []
        backbone.register_forward_pre_hook(lambda _, inputs: self.calls.append(tuple(inputs[0].shape)))

    def of(self, work: Callable[[], object]) -> tuple[list[tuple[int, ...]], int]:
        """The shapes that the backbone read and the bytes that were made."""
        self.calls.clear()
        with Bytes() as counter:
            work()
        return list(self.calls), counter.made


def rollout() -> Experience:
    """Responses of the lengths above, with a score each."""
    rows = [(PROMPTS[n // 4], [1 + n] * length) for n, length in enumerate(LENGTHS)]
    return from_rows(
        [prompt + answer for prompt, answer in rows],
        [[False] * len(prompt) + [True] * len(answer) for prompt, answer in rows],
        scores=[float(n) for n in range(8)],
        group=[n // 4 for n in range(8)],
    )


@pytest.mark.parametrize(("name", "expected"), [("transformer", 411_962), ("lstm", 70_342)])
def test_sampling(tiny_backbone: Callable[[str], Backbone], name: str, expected: int) -> None:
    counted = Counted(tiny_backbone(name))
    generator = torch.Generator().manual_seed(0)

    def work() -> None:
        sample(counted.policy, PROMPTS, max_new_tokens=10, eos_ids=[], generator=generator, group_size=4)

    calls, made = counted.of(work)
    assert calls == [(2, 6)] + [(8, 1)] * 9  # each prompt once; every token but the last, once
    assert made == pytest.approx(expected, rel=0.05)


READ = [
    (2, 6),
    (6, 3),
    (2, 40),
]  # both prompts once, short responses, long ones: 110 tokens for 105 real ones


@pytest.mark.parametrize(("name", "expected"), [("transformer", 1_125_458), ("lstm", 204_228)])
def test_reference(tiny_backbone: Callable[[str], Backbone], name: str, expected: int) -> None:
    counted = Counted(tiny_backbone(name))
    reference = FrozenCopy(counted.policy)  # which notes its calls too: hooks are copied
    needs = frozenset({"reference", "old_logp"})
    exp = rollout()
    calls, made = counted.of(lambda: complete(exp, needs, counted.policy, reference))
    assert calls == READ + READ  # the reference, and the policy for the old log-probabilities
    assert made == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("name", "expected"), [("transformer", 1_616_481), ("lstm", 576_022)])
def test_update(tiny_backbone: Callable[[str], Backbone], name: str, expected: int) -> None:
    counted = Counted(tiny_backbone(name))
    algorithm = build(compose_config(["algorithm=grpo"]).algorithm, "algorithm")
    exp = complete(rollout(), algorithm.needs(), counted.policy, FrozenCopy(counted.policy))
    exp, _ = algorithm.prepare(exp, counted.policy)

    def work() -> None:
        loss = algorithm.loss(exp, counted.policy)
        (loss.sum / loss.denominator).backward()

    calls, made = counted.of(work)
    assert calls == READ
    assert made == pytest.approx(expected, rel=0.05)
