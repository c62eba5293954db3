"""ILQL: numbers by hand, and where it comes to rest on a tree of responses, against numpy's enumeration."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from feedtune.errors import UserError
from feedtune.experience import from_rows
from feedtune_plugins.algorithms import ILQL, ILQLPolicy, TargetNetwork
from feedtune_plugins.backbones.ngram import NGram
from q_trees import Said, Table, Tree, close

T, F = True, False
TREES = {
    "plain": Tree(),
    "observed": Tree(observed=True, seed=1),
    "cut": Tree(cut=True, seed=2),
    "both": Tree(observed=True, cut=True, seed=3),
}
each_tree = pytest.mark.parametrize("tree", TREES.values(), ids=list(TREES))


def ilql(**options: Any) -> ILQL:
    return ILQL(**{"target": TargetNetwork(polyak=1.0), **options})


def expectile_of(q: np.ndarray, mu: np.ndarray, tau: float) -> float:
    """v with sum_a mu(a) |tau - 1(q_a < v)| (q_a - v) = 0, by bisection."""
    low, high = q.min(), q.max()
    for _ in range(100):
        v = (low + high) / 2
        pull = (mu * np.where(q < v, 1 - tau, tau) * (q - v)).sum()
        low, high = (v, high) if pull > 0 else (low, v)
    return float((low + high) / 2)


@each_tree
@pytest.mark.parametrize("tau", [0.5, 0.8])
def test_it_rests_at_the_expectile(tree: Tree, tau: float) -> None:
    """Without the conservative term: Q = r + gamma V(next), V the behaviour's expectile of Q."""
    gamma = 0.9
    algorithm = ilql(gamma=gamma, expectile=tau, conservative=0.0)
    policy = tree.build(algorithm)
    table = tree.read(policy, "value")
    cuts = {said: float(table[said][0]) for said in tree.leaves()}

    def value(said: Said, q: np.ndarray) -> float:
        return expectile_of(q, tree.mu(said), tau)

    q = tree.solve(gamma, value, cuts)
    v: Table = {said: np.array([value(said, of)]) for said, of in q.items()}
    tree.fit(algorithm, policy, steps=80, rate=0.5)  # squares without a half: half a step is a whole one
    close(tree.read(policy, "q1"), q)
    close(tree.read(policy, "q2"), q)
    close(tree.read(policy, "value"), v)


@pytest.mark.parametrize(("tau", "statistic"), [(0.5, np.mean), (0.999999, np.max)])
def test_expectiles_go_from_the_mean_to_the_maximum(tau: float, statistic: Any) -> None:
    q = np.array([1.0, 2.0, 6.0])
    assert expectile_of(q, np.ones(3) / 3, tau) == pytest.approx(statistic(q), abs=1e-4)


def test_it_speaks_as_pi_tilted_by_the_smaller_q() -> None:
    """pi(a) exp(beta (min(Q1, Q2) - V)) / Z; V is in the formula and cancels."""
    policy: Any = ILQLPolicy(NGram(vocab_size=3, n=2).double(), temperature=0.5, beta=2.0)
    policy.backbone.table.weight.data[1] = torch.tensor([0.0, 0.3, -0.2], dtype=torch.float64)
    policy.heads["q1"].weight.data[1] = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    policy.heads["q2"].weight.data[1] = torch.tensor([0.2, 0.9, 0.1], dtype=torch.float64)
    policy.heads["value"].weight.data[1] = 0.4
    # min Q = .2, .5, 0; logits of pi are the table's twice
    weight = [math.exp(2 * logit + 2 * (q - 0.4)) for logit, q in ((0.0, 0.2), (0.3, 0.5), (-0.2, 0.0))]
    expected = [w / sum(weight) for w in weight]
    found = policy.action_logits(torch.tensor([[1]])).softmax(-1)[0]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert set(policy.parameter_groups()) == {"backbone", "q1", "q2", "value"}


def two_tokens(algorithm: ILQL) -> tuple[Any, Any]:
    """Prompt 1, actions 0 and 2, rewards 1 and 3; a policy with numbers to calculate with."""
    policy: Any = algorithm.build_policy(lambda: NGram(vocab_size=3, n=4).double())
    first, second = 2 * 16, 2 * 4 + 1 * 16  # buckets of (1) and (1, 0): symbols token + 1, newest times 16
    algorithm.setup(policy)
    target: Any = algorithm.target
    for heads, shift in ((policy.heads, 0.0), (target.heads, 0.5)):
        heads["q1"].weight.data[first] = torch.tensor([2.0, 0.0, 0.0]) + shift
        heads["q2"].weight.data[first] = torch.tensor([1.0, 0.0, 0.0]) + shift
        heads["q1"].weight.data[second] = torch.tensor([0.0, 0.0, 2.0]) + shift
        heads["q2"].weight.data[second] = torch.tensor([0.0, 0.0, 4.0]) + shift
    policy.heads["value"].weight.data[first] = 1.0
    policy.heads["value"].weight.data[second] = 3.5
    exp = from_rows([[1, 0, 2]], [[F, T, T]])
    return replace(exp, reward=torch.tensor([[0.0, 1.0, 3.0]], dtype=torch.float64)), policy


def terms(**options: Any) -> dict[str, float]:
    algorithm = ilql(**options)
    exp, policy = two_tokens(algorithm)
    loss = algorithm.loss(exp, policy)
    assert float(loss.denominator) == 2
    found = {name.removeprefix("loss/"): 2 * float(value) for name, value in loss.metrics.items()}
    return {**found, "sum": loss.sum.item()}


def test_each_term_by_hand() -> None:
    # y_1 = 1 + .5 x 3.5 = 2.75, y_2 = 3 (terminal).
    # Q: (2 - 2.75)^2 + (1 - 2.75)^2 + (2 - 3)^2 + (4 - 3)^2 = .5625 + 3.0625 + 1 + 1 = 5.625
    # min Q_target - V: 1.5 - 1 = .5 and 2.5 - 3.5 = -1; V: .75 x .25 + .25 x 1 = .4375
    # imitation: pi is uniform, so log 3 for each token, weighted exp(2 x .5) and exp(2 x -1)
    found = terms(gamma=0.5, expectile=0.75, conservative=0.1, imitation=0.5, awac_beta=2.0, max_weight=2.0)
    assert found["q"] == pytest.approx(5.625)
    assert found["value"] == pytest.approx(0.4375)
    rows = [(2.0, 0, 0), (1.0, 0, 0), (2.0, 0, 0), (4.0, 0, 0)]  # the data's token first
    cross_entropy = sum(math.log(sum(math.exp(q) for q in row)) - row[0] for row in rows)
    assert found["conservative"] == pytest.approx(cross_entropy)
    imitation = (2.0 + math.exp(-2.0)) * math.log(3)  # e is more than max_weight
    assert found["imitation"] == pytest.approx(imitation)
    assert found["sum"] == pytest.approx(5.625 + 0.4375 + 0.1 * cross_entropy + 0.5 * imitation)
    free = terms(gamma=0.5, awac_beta=2.0, max_weight=math.inf)
    assert free["imitation"] == pytest.approx((math.e + math.exp(-2.0)) * math.log(3))
    usual = terms(gamma=0.5, awac_beta=20.0)  # exp(20 x .5) is 22026: more than 100, the bound unless said
    assert usual["imitation"] == pytest.approx((100 + math.exp(-20.0)) * math.log(3))


def test_a_cut_row_goes_on_with_v_of_its_last_token() -> None:
    algorithm = ilql(gamma=0.5)
    exp, policy = two_tokens(algorithm)
    policy.heads["value"].weight.data[2 * 1 + 1 * 4 + 3 * 16] = 4.0  # after (1, 0, 2)
    # y_2 = 3 + .5 x 4 = 5: (2 - 5)^2 + (4 - 5)^2 in place of 2
    loss = algorithm.loss(replace(exp, done=torch.tensor([False])), policy)
    assert 2 * float(loss.metrics["loss/q"]) == pytest.approx(3.625 + 10)


def test_gradients_reach_each_head_from_its_own_term_alone() -> None:
    """Q from its error, V from the expectile, pi from imitation: targets and weights have none."""
    algorithm = ilql(gamma=0.5, expectile=0.75, conservative=0.0, imitation=1.0, awac_beta=2.0)
    exp, policy = two_tokens(algorithm)
    algorithm.loss(exp, policy).sum.backward()  # type: ignore[no-untyped-call]
    first, second = 32, 24
    heads = policy.heads
    # 2 (Q - y): -1.5 and -3.5 for the first token, -2 and 2 for the second; nothing for other tokens
    assert heads["q1"].weight.grad[first].tolist() == pytest.approx([-1.5, 0, 0])
    assert heads["q2"].weight.grad[first].tolist() == pytest.approx([-3.5, 0, 0])
    assert heads["q1"].weight.grad[second].tolist() == pytest.approx([0, 0, -2])
    assert heads["q2"].weight.grad[second].tolist() == pytest.approx([0, 0, 2])
    # -2 w u: -2 x .75 x .5 and -2 x .25 x -1
    assert heads["value"].weight.grad[[first, second], 0].tolist() == pytest.approx([-0.75, 0.5])
    # w (pi - 1(a)) with w = e and exp(-2)
    third = 1 / 3
    expected = [math.e * g for g in (third - 1, third, third)]
    assert policy.backbone.table.weight.grad[first].tolist() == pytest.approx(expected)
    expected = [math.exp(-2) * g for g in (third, third, third - 1)]
    assert policy.backbone.table.weight.grad[second].tolist() == pytest.approx(expected)
    assert all(p.grad is None for p in algorithm.target.parameters())


def test_imitation_rests_at_the_weighted_behaviour() -> None:
    """pi = mu exp(awac_beta (Q - V)) / Z: its gradient is zero there and nowhere near."""
    tree = TREES["observed"]
    algorithm = ilql(gamma=0.9, expectile=0.8, conservative=0.0, awac_beta=1.5, max_weight=math.inf)
    policy: Any = tree.build(algorithm)
    tree.fit(algorithm, policy, steps=80, rate=0.5)
    table, q = policy.backbone.table.weight, tree.read(policy, "q1")
    for said in tree.states():
        table.data[tree.bucket(policy, said)] = torch.tensor(np.log(tree.mu(said)) + 1.5 * q[said])
    tree.gradients(algorithm, policy)
    assert table.grad.abs().max() < 1e-10
    table.data[tree.bucket(policy, (0,)), 0] += 0.5
    tree.gradients(algorithm, policy)
    assert table.grad.abs().max() > 0.1


def test_the_target_moves_with_its_backbone() -> None:
    algorithm = ilql(target=TargetNetwork(polyak=0.25, every=2))
    policy: Any = algorithm.build_policy(lambda: NGram(vocab_size=3, n=2).double())
    algorithm.setup(policy)
    found = []
    for _ in range(4):
        for part in (policy.heads["q2"].weight, policy.backbone.table.weight):
            part.data += 8.0
        algorithm.after_step(policy)
        target: Any = algorithm.target
        found.append((target.heads["q2"].weight[0, 0].item(), target.backbone.table.weight[0, 0].item()))
    # After 2 steps a quarter of 16, after 4 a quarter of the way from 4 to 32
    assert found == [(0, 0), (4, 4), (4, 4), (11, 11)]


def test_a_batch_without_actions_has_no_loss() -> None:
    algorithm = ilql()
    _, policy = two_tokens(algorithm)
    loss = algorithm.loss(from_rows([[0, 1]], [[F, F]]), policy)
    (loss.sum / loss.denominator).backward()  # type: ignore[no-untyped-call]
    assert loss.sum == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 2.0}, "algorithm.gamma: expected a number in [0, 1], got 2.0"),
        ({"expectile": 1.0}, "algorithm.expectile: expected a number in (0, 1), got 1.0"),
        ({"conservative": -1.0}, "algorithm.conservative: expected at least 0, got -1.0"),
        ({"imitation": -1.0}, "algorithm.imitation: expected at least 0, got -1.0"),
        ({"awac_beta": -1.0}, "algorithm.awac_beta: expected at least 0, got -1.0"),
        ({"beta": -1.0}, "algorithm.beta: expected at least 0, got -1.0"),
        ({"temperature": 0.0}, "algorithm.temperature: expected a number above 0, got 0.0"),
        ({"max_weight": 0.0}, "algorithm.max_weight: expected a number above 0, got 0.0"),
        (
            {"max_weight": 100.0},
            "algorithm.max_weight: only algorithm.awac_beta above 0 has a use for it; leave it null",
        ),
        (
            {"imitation": 0.0, "awac_beta": 1.0},
            "algorithm.awac_beta: with algorithm.imitation=0 nothing is imitated; leave it 0",
        ),
    ],
)
def test_wrong_values_are_refused_by_name(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError) as caught:
        ilql(**options)
    assert str(caught.value) == message
