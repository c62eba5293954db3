"""Two processes that share a rollout compute what one process computes of the whole, for every card."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from feedtune.config.build import build
from feedtune.config.compose import compose_config
from feedtune.config.discovery import own_conf
from feedtune.contracts import Algorithm
from feedtune.distributed import sum_over_ranks
from feedtune.experience import Experience
from feedtune.testing.algorithms import AlgorithmSuite, nudge

OPTIONS = sorted(file.stem for file in (own_conf() / "algorithm").glob("*.yaml"))
PAIRS = {"dpo", "online_dpo", "reward_model"}
NODES = {name: compose_config([f"algorithm={name}"]).algorithm for name in OPTIONS}
SCALING = "algorithm.scaling={_target_: feedtune_plugins.algorithms.RunningScale, center: true}"
NODES["ppo, scaled"] = compose_config(["algorithm=ppo", SCALING]).algorithm
Gradients = dict[str, Tensor]
Half = dict[str, tuple[Gradients, dict[str, Tensor]]]  # of every card: gradients, and the algorithm's state


class Bench(AlgorithmSuite):
    """One card."""

    def __init__(self, name: str) -> None:
        self.name, self.group_size = name, 2 if name in PAIRS else 4

    def make(self) -> Algorithm:
        algorithm: Algorithm = build(NODES[self.name], "algorithm")
        return algorithm


Bench.__test__ = False  # type: ignore[attr-defined]


def gradients(name: str, groups: list[int]) -> tuple[Gradients, dict[str, Tensor]]:
    """Of two rollouts with a step between, over these groups of each; the loader counts over all ranks."""
    bench = Bench(name)
    stage = bench.stage()
    found: Gradients = {}
    for seed in range(2):
        whole = bench.rollout(seed, groups=4)
        exp = whole[torch.isin(whole.group, torch.tensor(groups)).nonzero().squeeze(-1)].trim()
        ready, _ = bench.prepared(stage, exp)
        nudge(stage.policy, 3, 0.3)
        ready = with_counts(ready)
        found |= {f"{seed}.{n}": g for n, g in bench.measured(stage, ready, {}).gradients.items()}
    return found, dict(stage.algorithm.state_dict())


def with_counts(exp: Experience) -> Experience:
    """As the loader attaches them."""
    counts = torch.stack([exp.action.sum(), exp.action.any(-1).sum()]).double()
    tokens, rows = sum_over_ranks(counts).tolist()
    return replace(exp, step_tokens=tokens, step_rows=rows)


def one_of_two(rank: int, port: int, folder: str) -> None:
    """A process: half of the groups of every card."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.save({name: gradients(name, [rank, rank + 2]) for name in NODES}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[Half]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("fork")
    workers = [context.Process(target=one_of_two, args=(rank, port, str(folder))) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", NODES)
def test_two_processes_are_one(name: str, halves: list[Half]) -> None:
    """Gradients add up to the whole's, and statistics and coefficients are the same on both."""
    whole, state = gradients(name, [0, 1, 2, 3])
    (first, first_state), (second, second_state) = halves[0][name], halves[1][name]
    assert whole
    for part, gradient in whole.items():
        added = first.get(part, torch.zeros_like(gradient)) + second.get(part, torch.zeros_like(gradient))
        torch.testing.assert_close(added, gradient, atol=1e-9, rtol=0, msg=lambda m, p=part: f"{p}: {m}")
    for key, value in state.items():
        for mine in (first_state[key], second_state[key]):
            torch.testing.assert_close(mine, value, atol=1e-9, rtol=0, msg=lambda m, k=key: f"{k}: {m}")
