"""Running scale: by hand, against NumPy, over ranks, through a checkpoint; and where it is refused."""

from __future__ import annotations

import io
import itertools
import math
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune.policy import Policy
from feedtune_plugins.algorithms import GAE, KLPenalty, MonteCarlo, Overlong, PolicyGradient, RunningScale
from feedtune_plugins.algorithms.advantages import Baseline, Credit, Scale
from feedtune_plugins.backbones.ngram import NGram

T, F = True, False
NAN = math.nan
ROOT2 = math.sqrt(2)


def rollout(*scores: float) -> Experience:
    """A row of one action token for each score."""
    return from_rows([[1, 2]] * len(scores), [[F, T]] * len(scores), scores=scores)


def scaled(scaling: RunningScale, *scores: float) -> list[float]:
    exp, _ = scaling(rollout(*scores))
    return [float(value) for value in exp.score]


def state(scaling: RunningScale) -> dict[str, float]:
    return {name: float(value) for name, value in scaling.state_dict().items()}


def test_two_rollouts_by_hand() -> None:
    # 1, 3: mean 2, squares 1 + 1, deviation sqrt(2 / 1)
    # 1, 3, 7, 7: mean 4.5, squares 3.5^2 + 1.5^2 + 2.5^2 + 2.5^2 = 27, deviation sqrt(27 / 3) = 3
    scaling = RunningScale()
    assert scaled(scaling, 1.0, 3.0) == pytest.approx([1 / ROOT2, 3 / ROOT2])
    assert state(scaling) == pytest.approx({"rows": 2, "mean": 2, "squares": 2})
    exp, metrics = scaling(rollout(7.0, 7.0))
    assert exp.score.tolist() == pytest.approx([7 / 3, 7 / 3])
    assert metrics == pytest.approx({"rollout/scale": 3.0})
    assert state(scaling) == pytest.approx({"rows": 4, "mean": 4.5, "squares": 27})


def test_centred_and_clipped_by_hand() -> None:
    # (1 - 2) / sqrt 2 = -.71 and .71; then (7 - 4.5) / 3 = .83, of which .8 are left
    scaling = RunningScale(center=True, clip=0.8)
    assert scaled(scaling, 1.0, 3.0) == pytest.approx([-1 / ROOT2, 1 / ROOT2])
    assert scaled(scaling, 7.0, 7.0) == pytest.approx([0.8, 0.8])
    # on the other side, too: 0 of 0, 0, 0, 9 is (0 - 2.25) / 4.5 = -.5
    assert scaled(RunningScale(center=True, clip=0.4), 0.0, 0.0, 0.0, 9.0) == pytest.approx(
        [-0.4] * 3 + [0.4]
    )


def test_rewards_along_the_way_are_divided_and_the_rest_lands_on_the_last_action() -> None:
    # Row A earns 2 and then -1, row B 3 at its end; scores 1 and 3, mean 2, deviation sqrt 2. Row C has no
    # action: its score of 2, which stands on its last token, leaves the mean and makes the deviation
    # sqrt((1 + 1 + 0) / 2) = 1.
    exp = from_rows([[1, 2, 2], [1, 2], [1, 1]], [[F, T, T], [F, T], [F, F]], scores=[-1.0, 3.0, 2.0])
    reward = exp.reward.clone()
    reward[0, 1] = 2.0
    both = replace(exp, reward=reward)[:2]
    found, _ = RunningScale()(both)
    assert torch.allclose(found.reward, torch.tensor([[0, 2, -1], [0, 3, 0]]) / ROOT2)
    found, _ = RunningScale(center=True)(both)  # less 2 / sqrt 2 in each row
    assert torch.allclose(found.reward, torch.tensor([[0, 2, -3], [0, 1, 0]]) / ROOT2)
    found, _ = RunningScale(center=True)(replace(exp, reward=reward))
    assert torch.allclose(found.reward, torch.tensor([[0.0, 2, -3], [0, 1, 0], [0, 0, 0]]))
    assert found.reward.dtype == torch.float32


def test_while_all_scores_are_the_same_nothing_is_divided() -> None:
    scaling = RunningScale()
    assert scaled(scaling, 5.0) == [5.0]  # of one row there is no deviation
    assert scaled(scaling, 5.0, 5.0) == [5.0, 5.0]
    assert scaled(RunningScale(center=True), 0.1, 0.1, 0.1) == [0.0, 0.0, 0.0]
    # then 5, 5, 5, 9: mean 6, squares 3 + 9 = 12, deviation 2
    assert scaled(scaling, 9.0) == [4.5]


def test_rows_without_a_score_neither_count_nor_move() -> None:
    scaling = RunningScale(center=True)
    exp, _ = scaling(rollout(1.0, NAN, 3.0))
    assert exp.score.tolist() == pytest.approx([-1 / ROOT2, 0.0, 1 / ROOT2])
    assert state(scaling) == pytest.approx({"rows": 2, "mean": 2, "squares": 2})
    before = state(scaling)
    exp, metrics = scaling(rollout(NAN, NAN))
    assert exp.score.tolist() == [0.0, 0.0]
    assert (state(scaling), metrics) == (before, {"rollout/scale": pytest.approx(ROOT2)})
    assert RunningScale()(rollout(NAN))[1] == {"rollout/scale": 1.0}


def test_greedy_scores_are_treated_alike_and_do_not_count() -> None:
    # deviation sqrt 2, mean 2
    scaling = RunningScale(center=True, clip=1.0)
    exp, _ = scaling(rollout(1.0, 3.0).with_(greedy=torch.tensor([2.0 + ROOT2 / 2, 100.0])))
    assert exp.extra["greedy"].tolist() == pytest.approx([0.5, 1.0])
    assert state(scaling)["rows"] == 2
    unknown, _ = scaling(rollout(1.0).with_(greedy=torch.tensor([NAN])))
    assert unknown.extra["greedy"].isnan().all()
    assert "greedy" not in scaling(rollout(1.0))[0].extra


SCORES = st.floats(-1e3, 1e3, width=32, allow_subnormal=False)


@given(st.lists(st.lists(SCORES | st.just(NAN), min_size=1, max_size=6), min_size=1, max_size=6))
def test_any_split_into_rollouts_has_the_moments_of_all_rows(rollouts: list[list[float]]) -> None:
    scaling, seen = RunningScale(), list[float]()
    for scores in rollouts:
        exp, metrics = scaling(rollout(*scores))
        seen += [score for score in scores if not math.isnan(score)]
        deviation = np.std(seen, ddof=1) if len(seen) > 1 and len(set(seen)) > 1 else 1.0
        if len(set(seen)) != 1:  # of equal scores NumPy's deviation is a rounding error
            assert metrics["rollout/scale"] == pytest.approx(deviation, rel=1e-9)
        wanted = np.nan_to_num(np.array(scores)) / metrics["rollout/scale"]
        np.testing.assert_allclose(exp.score.numpy(), wanted, rtol=1e-6, atol=1e-30)
    assert float(scaling.rows) == len(seen)
    if seen:
        assert float(scaling.mean) == pytest.approx(np.mean(seen), rel=1e-9, abs=1e-9)


def test_large_scores_keep_their_deviation() -> None:
    """Squares of all scores less the square of their mean would leave nothing of it."""
    scaling = RunningScale()
    for scores in ([1e7, 1e7 + 2], [1e7 + 4]):
        _, metrics = scaling(rollout(*scores))
    assert metrics["rollout/scale"] == pytest.approx(2.0)  # (4 + 0 + 4) / 2


def test_it_goes_on_from_a_checkpoint() -> None:
    """As Lightning keeps it: plain tensors, of the algorithm's state."""

    def made() -> PolicyGradient:
        return PolicyGradient(advantage=MonteCarlo(baseline="none"), scaling=RunningScale(center=True))

    first, restored = made(), made()
    policy = Policy(NGram(vocab_size=3, n=2))
    first.prepare(rollout(1.0, 3.0), policy)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    whole, resumed = (one.prepare(rollout(7.0, 7.0), policy) for one in (first, restored))
    assert torch.equal(whole[0].extra["advantage"], resumed[0].extra["advantage"])
    assert whole[1] == resumed[1] == pytest.approx({"rollout/scale": 3.0, "rollout/baseline": 0.0})
    assert not torch.equal(
        made().prepare(rollout(7.0, 7.0), policy)[0].extra["advantage"], whole[0].extra["advantage"]
    )


def test_a_model_in_bfloat16_does_not_round_it() -> None:
    algorithm = PolicyGradient(advantage=MonteCarlo(), scaling=RunningScale())
    assert algorithm.scaling is not None
    algorithm.scaling(rollout(*range(257)))
    moved = algorithm.to("cpu", torch.bfloat16).scaling
    assert moved is not None
    assert state(moved)["rows"] == 257
    assert {value.dtype for value in moved.state_dict().values()} == {torch.float64}
    assert moved.to("meta").rows.is_meta  # but it goes where the model goes


def test_penalties_are_weighed_against_scaled_scores() -> None:
    # Scores 10, 20, 30: scaled 1, 2, 3. Every token of the old policy is log 4 likelier than under the
    # reference: 0.5 nats' worth of it is taken off each. Row 3 is one token too long: 1 more.
    exp = from_rows([[1, 2], [1, 2], [1, 2, 2]], [[F, T], [F, T], [F, T, T]], scores=[10.0, 20.0, 30.0])
    exp = replace(exp, old_logp=torch.zeros(3, 3), ref_logp=torch.full((3, 3), -math.log(4)))
    algorithm = PolicyGradient(
        advantage=MonteCarlo(baseline="none", credit="row"),
        scaling=RunningScale(),
        kl=KLPenalty(coefficient=0.5),
        overlong=Overlong(limit=2, margin=1),
    )
    found, metrics = algorithm.prepare(exp, Policy(NGram(vocab_size=3, n=2)))
    leash = 0.5 * math.log(4)
    expected = torch.tensor([1 - leash, 2 - leash, 3 - 2 * leash - 1])
    assert torch.allclose(found.extra["advantage"][:, 1], expected)
    assert torch.equal(found.reward, exp.reward)  # what is logged and kept is raw
    assert metrics["rollout/scale"] == pytest.approx(10.0)


# Over ranks

PARTS: list[list[list[float]]] = [
    [[1.0], [3.0, 7.0, 7.0]],
    [[], [2.0, 5.0]],
    [[NAN, 4.0], [NAN]],
    [[NAN], [NAN]],
]


def part_of(parts: Sequence[list[float]], rank: int) -> Experience:
    return rollout(*parts[rank]) if parts[rank] else rollout(NAN)[:0]


def one_of_two(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    scaling = RunningScale(center=True)
    scores = [scaling(part_of(parts, rank))[0].score for parts in PARTS]
    torch.save([scores, dict(scaling.state_dict())], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    """With parts of different size, with none, without a score; to the bit the same on both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("fork")
    workers = [context.Process(target=one_of_two, args=(rank, port, str(tmp_path))) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    (first, state0), (second, state1) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)
    )
    assert all(torch.equal(value, state1[name]) for name, value in state0.items())
    whole = RunningScale(center=True)
    for number, parts in enumerate(PARTS):
        exp, _ = whole(rollout(*parts[0], *parts[1]))
        torch.testing.assert_close(torch.cat([first[number], second[number]]), exp.score)
    assert {name: float(value) for name, value in state0.items()} == pytest.approx(state(whole))


# Where it would be idle

OPTIONS = [
    {"baseline": baseline, "scale": scale, "credit": credit, "gamma": gamma, "scope": scope}
    for baseline, scale, credit, gamma, scope in itertools.product(
        sorted({*get_args(Baseline)} - {"value"}),
        get_args(Scale),
        get_args(Credit),
        (1.0, 0.5),
        (None, "group"),
    )
]


def estimator(options: dict[str, Any]) -> MonteCarlo | None:
    """None: there is no such estimator."""
    try:
        return MonteCarlo(**options, eps=None if options["scale"] == "none" else 1e-12)
    except UserError:
        return None


def advantages(options: dict[str, Any], factors: Sequence[float], shifts: Sequence[float]) -> torch.Tensor:
    """Of two rollouts whose scores are changed by another factor or shift each."""
    made = estimator(options)
    assert made is not None
    found = []
    for factor, shift, scores in zip(
        factors, shifts, ([1.0, -2, 4, 0.5, 3, 3], [3.0, 1, 0, 7, 2, 1]), strict=True
    ):
        exp = from_rows(
            [[1, 2], [1, 2, 2], [1, 2, 2, 2]] * 2,
            [[F, T], [F, T, T], [F, T, T, T]] * 2,
            scores=[score * factor + shift for score in scores],
            group=[0, 0, 0, 1, 1, 1],
        )
        exp = replace(exp, reward=exp.reward.double()).with_(
            greedy=torch.tensor([1.0, 1, 1, 2, 2, 2]).double() * factor + shift
        )
        found.append(made(exp, exp.reward).advantage)
    return torch.stack(found)


@pytest.mark.parametrize("options", [one for one in OPTIONS if estimator(one)], ids=str)
def test_what_an_estimator_absorbs(options: dict[str, Any]) -> None:
    """Just what it says that it does, and no more."""
    made = estimator(options)
    assert made is not None
    plain = advantages(options, (1, 1), (0, 0))
    same = {
        "scale": torch.allclose(plain, advantages(options, (3, 5), (0, 0)), atol=1e-6),
        "shift": torch.allclose(plain, advantages(options, (1, 1), (2.5, 4)), atol=1e-6),
    }
    assert made.absorbs() == {name for name, so in same.items() if so}


def test_learned_values_absorb_nothing() -> None:
    """Of fixed ones whitening takes a shift off; but they are fitted to scores that have it."""
    for scale in get_args(Scale):
        assert MonteCarlo(baseline="value", scale=scale).absorbs() == frozenset()
    assert GAE().absorbs() == frozenset()


WHITENED = MonteCarlo(baseline="none", scale="tokens")
IN_GROUPS = MonteCarlo(baseline="mean", scale="rows", scope="group")
ROWS = MonteCarlo(baseline="none", scale="rows")  # divides, and takes nothing off
KL_IN_LOSS = KLPenalty(place="loss", estimator="k3")
FACTOR = (
    "algorithm.scaling: algorithm.advantage divides by a deviation of its own, and no penalty in the "
    "reward (algorithm.kl, algorithm.overlong) is weighed against scores; leave it null"
)
SHIFT = (
    "algorithm.scaling.center: algorithm.advantage takes off what all rows have in common anyway; "
    "leave it false"
)


@pytest.mark.parametrize(
    ("options", "parts", "message"),
    [
        ({}, {"advantage": WHITENED}, FACTOR),
        ({"center": True}, {"advantage": WHITENED}, FACTOR),
        ({}, {"advantage": IN_GROUPS, "kl": KL_IN_LOSS}, FACTOR),
        ({}, {"advantage": IN_GROUPS, "kl": KLPenalty(coefficient=0.0)}, FACTOR),
        ({}, {"advantage": ROWS}, FACTOR),
        ({"center": True}, {"advantage": MonteCarlo()}, SHIFT),
        ({"center": True}, {"advantage": IN_GROUPS, "kl": KLPenalty()}, SHIFT),
        ({"center": True}, {"advantage": IN_GROUPS, "overlong": Overlong(limit=2, margin=1)}, SHIFT),
    ],
)
def test_what_would_change_nothing_is_refused(
    options: dict[str, Any], parts: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        PolicyGradient(scaling=RunningScale(**options), **parts)
    assert str(caught.value) == message
    PolicyGradient(scaling=RunningScale(**options, clip=1.0), **parts)  # clipped, scores differ otherwise


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, {"advantage": MonteCarlo()}),
        ({}, {"advantage": IN_GROUPS, "kl": KLPenalty()}),
        ({}, {"advantage": IN_GROUPS, "overlong": Overlong(limit=2, margin=1)}),
        ({"center": True}, {"advantage": ROWS}),
        ({"center": True}, {"advantage": GAE()}),
    ],
)
def test_it_is_welcome_where_it_changes_something(options: dict[str, Any], parts: dict[str, Any]) -> None:
    PolicyGradient(scaling=RunningScale(**options), **parts)


@pytest.mark.parametrize("clip", [0.0, -1.0])
def test_a_bound_is_above_0(clip: float) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.scaling\.clip: expected a number above 0, got {clip}"):
        RunningScale(clip=clip)
