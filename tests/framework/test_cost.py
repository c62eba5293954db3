"""What a small rollout and update cost, counted: tokens read, calls of the backbone, bytes made.

Clocks are noisy, counts are not. Whoever changes a number here changes the speed (docs/performance.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
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
from feedtune.scoring import score_actions
from feedtune_plugins.backbones.recurrent import Recurrent

PROMPTS = [[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]]
LENGTHS = [2, 2, 3, 40, 2, 3, 3, 38]  # of four responses to each prompt: 93 tokens, six short rows, two long


class Bytes(TorchDispatchMode):
    """Adds up the sizes of all tensors that come into being; views and changes in place are none."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        self.operations[function.name()] += 1
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
        self.operations: Counter[str] = Counter()

    def of(self, work: Callable[[], object]) -> tuple[list[tuple[int, ...]], int]:
        """The shapes that the backbone read and the bytes that were made."""
        self.calls.clear()
        with Bytes() as counter:
            work()
        self.operations = counter.operations
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


def test_rows_that_are_over_leave(tiny_backbone: Callable[[str], Backbone]) -> None:
    """When an eighth of the batch is over, not at once and not at the end."""
    counted = Counted(tiny_backbone("lstm"))
    generator = torch.Generator().manual_seed(0)

    def work() -> None:
        sample(counted.policy, PROMPTS, max_new_tokens=10, eos_ids=[0], generator=generator, group_size=8)

    calls, _ = counted.of(work)
    # Of 16 rows two are over after 1 token, one after 3 (and stays: 13 of 14 go on), one after 4, ...
    assert [rows for rows, _ in calls] == [2, 14, 14, 14, 12, 8, 7, 7, 5, 5]


def test_sampling_runs_on_packed_weights(tiny_backbone: Callable[[str], Backbone]) -> None:
    backbone = tiny_backbone("transformer")
    counted = Counted(backbone)
    linear = sum(type(layer) is nn.Linear for layer in backbone.modules())

    def work() -> None:
        generator = torch.Generator().manual_seed(0)
        sample(counted.policy, PROMPTS, max_new_tokens=10, eos_ids=[], generator=generator, group_size=4)

    counted.of(work)
    assert linear
    assert counted.operations["mkldnn::_linear_pointwise"] == 10 * linear  # the prompts, then nine tokens


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


def test_one_step_reads_nothing_but_the_reference(tiny_backbone: Callable[[str], Backbone]) -> None:
    counted = Counted(tiny_backbone("transformer"))
    algorithm = build(compose_config(["algorithm=grpo"]).algorithm, "algorithm")
    algorithm.check_steps(1)
    calls, _ = counted.of(
        lambda: complete(rollout(), algorithm.needs(), counted.policy, FrozenCopy(counted.policy))
    )
    assert calls == READ


def test_logits_are_made_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 action tokens of 8,192 words: 2^20 logits at a time, and each piece once."""
    torch.manual_seed(0)
    counted = Counted(Recurrent(vocab_size=8192, embed_size=4, hidden_size=4))
    asked: list[int] = []
    unembed = counted.policy.backbone.unembed

    def noted(hidden: Tensor) -> Tensor:
        asked.append(len(hidden))
        return unembed(hidden)

    monkeypatch.setattr(counted.policy.backbone, "unembed", noted)
    exp = from_rows([[1] * 101] * 4, [[False] + [True] * 100] * 4)

    def work() -> None:
        score_actions(counted.policy, exp).logp.sum().backward()

    _, made = counted.of(work)
    assert asked == [128, 128, 128, 16]
    assert made == pytest.approx(
        5.162 * 400 * 8192 * 4, rel=0.05
    )  # logits, their softmax, its exponential, gradients
