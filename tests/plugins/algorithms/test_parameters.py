"""No constructor parameter of an algorithm is idle: turning it moves something that is computed."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from feedtune.contracts import Algorithm
from feedtune.sampling import sample
from feedtune_plugins import algorithms
from feedtune_plugins.algorithms import (
    GAE,
    ILQL,
    Acting,
    Adaptive,
    CappedWeight,
    Clip,
    DirectPreference,
    FilteredImitation,
    ILQLPolicy,
    KLPenalty,
    LinearEpsilon,
    MonteCarlo,
    Overlong,
    PolicyGradient,
    PriorPolicy,
    QLearning,
    QPolicy,
    RewardModelling,
    RunningScale,
    SupervisedTuning,
    TargetNetwork,
    ValueLoss,
)


def fingerprint(world: Any, algorithm: Algorithm) -> list[float]:
    """What three rollouts with a step each compute: losses, gradients, targets, samples."""
    policy = world.policy(algorithm)
    algorithm.setup(policy)
    if isinstance(policy, QPolicy | ILQLPolicy):
        generator = torch.Generator().manual_seed(0)
        target = [algorithm.target.heads] if algorithm.target else []  # type: ignore[union-attr]
        for heads in (policy.heads, *target):
            for name, outputs in policy.config["heads"].items():
                heads[name].weight.data = torch.randn(16, outputs, generator=generator).double()
    exp = world.experience([3, 6, 0, 5, 1, 4])
    in_pairs = isinstance(algorithm, DirectPreference | RewardModelling)
    exp = replace(exp, group=torch.tensor([0, 0, 1, 1, 2, 2] if in_pairs else [0, 0, 0, 1, 1, 1]))
    optimizer = torch.optim.SGD(policy.parameters(), lr=2.0)  # ratios leave [.5, 2]
    found: list[torch.Tensor] = []
    for rollout in range(3):
        better = replace(exp, reward=exp.reward + rollout)
        with torch.no_grad():
            ready, metrics = algorithm.prepare(world.complete(better, algorithm, policy), policy)
        found += [torch.as_tensor(value) for value in metrics.values()]
        for _ in range(2):
            loss = algorithm.loss(ready, policy)
            optimizer.zero_grad()
            (loss.sum / loss.denominator).backward()
            optimizer.step()
            algorithm.after_step(policy)
            found += [loss.sum.detach(), *(p.detach().clone() for p in policy.parameters())]
    found += [value.clone() for value in algorithm.state_dict().values()]
    responses = sample(
        policy, [[1]], max_new_tokens=2, eos_ids=[2], generator=torch.Generator().manual_seed(0), group_size=9
    )
    found.append(torch.tensor([p for r in responses for p in r.logp]))
    return torch.cat([value.double().flatten() for value in found]).tolist()


def pg(**parts: Any) -> PolicyGradient:
    return PolicyGradient(**{"advantage": MonteCarlo(), **parts})


def q(**parts: Any) -> QLearning:
    # A copy: a target network that another algorithm has used would remember it.
    acting = Acting(temperature=0.5, epsilon=0.1)
    return QLearning(**copy.deepcopy({"acting": acting, "target": TargetNetwork(), **parts}))


def with_advantage(part: type) -> Callable[..., Algorithm]:
    return lambda **options: pg(advantage=part(**options))


def with_penalty(**options: Any) -> Algorithm:
    return pg(kl=KLPenalty(**options))


def with_adaptive(**options: Any) -> Algorithm:
    return with_penalty(adaptive=Adaptive(**options))


def with_clip(**options: Any) -> Algorithm:
    return pg(surrogate=Clip(**options))


def with_value(**options: Any) -> Algorithm:
    return pg(advantage=GAE(), surrogate=Clip(), value=ValueLoss(**options))


IN_LOSS = {"place": "loss", "estimator": "k2"}
# class -> (how to build an algorithm around it, parameter -> (the rest, one value, another))
TURNS: dict[type, tuple[Callable[..., Algorithm], Mapping[str, tuple[Mapping[str, Any], Any, Any]]]] = {
    MonteCarlo: (
        with_advantage(MonteCarlo),
        {
            "gamma": ({}, 1.0, 0.5),
            "baseline": ({}, "none", "mean"),
            "scope": ({}, "rollout", "group"),
            "decay": ({"baseline": "running"}, 0.9, 0.1),
            "credit": ({}, "to_go", "row"),
            "scale": ({}, "none", "rows"),
            "eps": ({"scale": "rows"}, 1e-4, 1e-1),
        },
    ),
    GAE: (
        with_advantage(GAE),
        {"gamma": ({}, 1.0, 0.5), "lam": ({}, 1.0, 0.5), "whiten": ({}, True, False)},
    ),
    Clip: (
        with_clip,
        {
            "low": ({}, 0.2, 0.6),
            "high": ({}, 0.2, 0.6),
            "dual": ({}, None, 1.01),
            "level": ({}, "token", "row"),
        },
    ),
    CappedWeight: (lambda **options: pg(surrogate=CappedWeight(**options)), {"cap": ({}, 1.0, 1.5)}),
    Overlong: (
        lambda **options: pg(overlong=Overlong(**options)),
        {"limit": ({"margin": 2}, 2, 3), "margin": ({"limit": 2}, 1, 2)},
    ),
    ValueLoss: (
        with_value,
        {"weight": ({}, 0.5, 1.0), "clip": ({}, None, 0.1), "critic": ({}, "shared", "own")},
    ),
    RunningScale: (
        lambda **options: pg(advantage=MonteCarlo(baseline="none"), scaling=RunningScale(**options)),
        {"center": ({}, False, True), "clip": ({}, None, 1.0)},
    ),
    Adaptive: (
        with_adaptive,
        {"target": ({"horizon": 10.0}, 0.001, 100.0), "horizon": ({"target": 0.001}, 10.0, 20.0)},
    ),
    KLPenalty: (
        with_penalty,
        {
            "coefficient": ({}, 0.1, 0.2),
            "estimator": ({"place": "loss"}, "k3", "k3_token_ratio"),
            "adaptive": ({}, None, Adaptive(target=0.01, horizon=10.0)),
        },
    ),
    PolicyGradient: (
        pg,
        {
            "advantage": ({}, MonteCarlo(), MonteCarlo(baseline="none")),
            "aggregation": ({}, "token_mean", "row_sum"),
            "length": ({"aggregation": "row_sum"}, None, 4.0),
            "overlong": ({}, None, Overlong(limit=2, margin=1)),
            "surrogate": ({}, None, Clip(low=0.01, high=0.01)),
            "scaling": ({}, None, RunningScale()),
            "kl": ({}, None, KLPenalty()),
            "value": ({"advantage": GAE()}, None, ValueLoss(weight=0.1)),
            "entropy": ({}, 0.0, 0.1),
            "temperature": ({}, 1.0, 0.5),
        },
    ),
    Acting: (
        lambda **options: q(acting=Acting(**options)),
        {"temperature": ({}, 0.5, 0.0), "epsilon": ({}, 0.1, 0.5)},
    ),
    LinearEpsilon: (
        lambda **options: q(acting=Acting(epsilon=LinearEpsilon(**options))),
        {"start": ({}, 1.0, 0.5), "end": ({}, 0.05, 0.5), "steps": ({}, 10, 20)},
    ),
    TargetNetwork: (
        lambda **options: q(target=TargetNetwork(**options)),
        {"polyak": ({}, 0.1, 0.9), "every": ({}, 1, 2)},
    ),
    QLearning: (
        q,
        {
            "acting": ({}, Acting(temperature=0.5), Acting(temperature=1.0)),
            "gamma": ({}, 1.0, 0.5),
            "backup": ({}, "max", "double"),
            "prior": ({"backup": "soft"}, "uniform", "reference"),
            "n_step": ({}, 1, 2),
            "dueling": ({}, False, True),
            "conservative": ({}, 0.0, 0.5),
            "aggregation": ({}, "token_mean", "sum"),
            "target": ({}, None, TargetNetwork()),
        },
    ),
    ILQL: (
        lambda **options: ILQL(**copy.deepcopy({"target": TargetNetwork(), **options})),
        {
            "target": ({}, TargetNetwork(), TargetNetwork(polyak=0.5)),
            "gamma": ({}, 1.0, 0.5),
            "expectile": ({}, 0.5, 0.7),
            "conservative": ({}, 0.0, 0.5),
            "imitation": ({}, 1.0, 0.5),
            "awac_beta": ({}, 0.0, 1.0),
            "max_weight": ({"awac_beta": 1.0}, None, 0.5),
            "beta": ({}, 0.0, 1.0),
            "temperature": ({}, 1.0, 0.5),
        },
    ),
    SupervisedTuning: (SupervisedTuning, {}),
    FilteredImitation: (FilteredImitation, {"keep": ({}, 1, 2), "temperature": ({}, 1.0, 0.5)}),
    DirectPreference: (
        DirectPreference,
        {
            "loss": ({}, "sigmoid", "ipo"),
            "beta": ({}, 0.5, 1.0),
            "label_smoothing": ({}, None, 0.1),
            "temperature": ({}, 1.0, 0.5),
        },
    ),
    RewardModelling: (RewardModelling, {"margin": ({}, 0.0, 0.5), "centering": ({}, 0.0, 0.5)}),
}
CASES = [(made, name) for made, (_, turns) in TURNS.items() for name in turns]


@pytest.mark.parametrize(("made", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_turning_it_moves_something(world: Any, made: type, name: str) -> None:
    build, turns = TURNS[made]
    rest, one, other = turns[name]
    first, again = (fingerprint(world, build(**{**rest, name: one})) for _ in range(2))
    second = fingerprint(world, build(**{**rest, name: other}))
    assert first == again  # nothing else moves
    assert first != second


def test_where_the_penalty_stands_makes_a_difference(world: Any) -> None:
    """`place` cannot be turned alone: each place has its own estimators."""
    assert fingerprint(world, with_penalty()) != fingerprint(world, with_penalty(**IN_LOSS))


def test_every_parameter_is_turned() -> None:
    for made, (_, turns) in TURNS.items():
        listed = inspect.signature(made).parameters.values()
        parameters = {p.name for p in listed if p.kind is p.KEYWORD_ONLY}
        assert parameters - set(turns) == ({"place"} if made is KLPenalty else set()), made.__name__


def test_every_public_class_is_here() -> None:
    public = {getattr(algorithms, name) for name in algorithms.__all__}
    assert public - set(TURNS) == {QPolicy, PriorPolicy, ILQLPolicy}  # which algorithms build
