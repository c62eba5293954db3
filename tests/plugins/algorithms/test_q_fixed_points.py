"""Where each member of the Q family comes to rest on a tree of responses, against numpy's enumeration.

`Tree.data` is the expectation: every response in proportion to the behaviour's probability. At the fixed
point its gradient is zero; and from tables of 0, gradient descent gets there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from feedtune_plugins.algorithms import Acting, QLearning, TargetNetwork
from q_trees import Said, Table, Tree, close

TREES = {
    "plain": Tree(),
    "observed": Tree(observed=True, seed=1),
    "cut": Tree(cut=True, seed=2),
    "both": Tree(observed=True, cut=True, seed=3),
}
each_tree = pytest.mark.parametrize("tree", TREES.values(), ids=list(TREES))
GREEDY = Acting(temperature=0.0, epsilon=0.1)


def largest(said: Said, q: np.ndarray) -> float:
    return float(q.max())


def at_the_cuts(tree: Tree, table: Table) -> dict[Said, float]:
    """The largest entry of each state where rows were cut; nothing in the data changes these."""
    return {said: float(table[said].max()) for said in tree.leaves()}


def is_at_rest(tree: Tree, algorithm: QLearning, policy: Any) -> None:
    """The data's gradient vanishes here, and does not once an entry is moved."""
    (head,) = policy.heads
    assert tree.gradients(algorithm, policy)[head].abs().max() < 1e-12
    policy.heads[head].weight.data[tree.bucket(policy, (0,)), 1] += 0.5
    assert tree.gradients(algorithm, policy)[head].abs().max() > 0.1


@each_tree
@pytest.mark.parametrize(("backup", "slow"), [("max", False), ("max", True), ("double", True)])
def test_one_step_rests_at_the_optimal_values(tree: Tree, backup: Any, slow: bool) -> None:
    target = TargetNetwork(polyak=1.0) if slow else None
    algorithm = QLearning(acting=GREEDY, gamma=0.9, backup=backup, target=target)
    policy = tree.build(algorithm)
    optimal = tree.solve(0.9, largest, at_the_cuts(tree, tree.read(policy)))
    tree.fit(algorithm, policy, steps=4)  # one for each token, and one to show that it stays
    close(tree.read(policy), optimal)
    is_at_rest(tree, algorithm, policy)


def dueling_at(tree: Tree, backup: Any) -> tuple[QLearning, Any, dict[Said, float]]:
    """An algorithm with two heads, its policy, and the values at its cuts."""
    target = TargetNetwork(polyak=1.0)
    algorithm = QLearning(acting=GREEDY, gamma=0.9, backup=backup, dueling=True, target=target)
    policy: Any = tree.build(algorithm)
    cuts = {said: policy.q_values(tree.hidden(policy, said)).max().item() for said in tree.leaves()}
    return algorithm, policy, cuts


@each_tree
@pytest.mark.parametrize("backup", ["max", "double"])
def test_dueling_rests_at_the_optimal_values_too(tree: Tree, backup: Any) -> None:
    """Q = V + A - mean A is what is fitted; V and A alone are free by a constant, here 5."""
    algorithm, policy, cuts = dueling_at(tree, backup)
    optimal = tree.solve(0.9, largest, cuts)
    tree.write(policy, {said: q.mean(keepdims=True) for said, q in optimal.items()}, "value")
    tree.write(policy, {said: q - q.mean() + 5 for said, q in optimal.items()}, "advantage")
    algorithm.target.start(policy)  # type: ignore[union-attr]
    assert all(g.abs().max() < 1e-12 for g in tree.gradients(algorithm, policy).values())
    policy.heads["value"].weight.data[tree.bucket(policy, (0,))] += 0.5
    assert all(g.abs().max() > 0.1 for g in tree.gradients(algorithm, policy).values())


def test_dueling_gets_there() -> None:
    tree = TREES["both"]
    algorithm, policy, cuts = dueling_at(tree, "double")
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    for _ in range(250):
        optimizer.zero_grad()
        algorithm.loss(tree.data, policy).sum.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        algorithm.after_step(policy)
    found = {said: policy.q_values(tree.hidden(policy, said)).detach().numpy() for said in tree.states()}
    close(found, tree.solve(0.9, largest, cuts), 1e-3)


@each_tree
@pytest.mark.parametrize("n", [2, 3, 5])
def test_n_step_rests_at_values_weighted_by_the_behaviour(tree: Tree, n: int) -> None:
    """Q = r + gamma W_{n-1}(next): W_0 is the maximum, W_k the behaviour's mean of r + gamma W_{k-1}."""
    gamma = 0.9
    algorithm = QLearning(acting=GREEDY, gamma=gamma, n_step=n, target=TargetNetwork(polyak=1.0))
    policy = tree.build(algorithm)
    leaf = at_the_cuts(tree, tree.read(policy))
    found: Table = {}

    def follow(said: Said, k: int) -> float:
        if tree.ends(said):
            return 0.0
        if said in leaf:
            return leaf[said]
        if k == 0:
            return float(found[said].max())
        after = np.array([follow((*said, token), k - 1) for token in range(3)])
        return float(tree.mu(said) @ (tree.reward[said] + gamma * after))

    for said in reversed(tree.states()):
        after = np.array([follow((*said, token), n - 1) for token in range(3)])
        found[said] = tree.reward[said] + gamma * after
    tree.fit(algorithm, policy, steps=4)
    close(tree.read(policy), found)
    is_at_rest(tree, algorithm, policy)
    optimal = tree.solve(gamma, largest, leaf)
    assert np.abs(optimal[()] - found[()]).max() > 0.05  # it is not Q*


# The soft optimum: the policy is the prior times exp(return / temperature), row by row


def prior_of(tree: Tree, policy: Any, said: Said) -> np.ndarray:
    logits = policy.towers["prior"].table.weight.data[tree.bucket(policy, said)].numpy()
    return np.exp(logits) / np.exp(logits).sum()


def row_probabilities(tree: Tree, policy: Any) -> np.ndarray:
    """Of every response, by the policy that acts."""
    found = []
    for response in tree.responses:
        p = 1.0
        for t, token in enumerate(response):
            p *= float(policy.action_logits(tree.hidden(policy, response[:t])).softmax(-1)[token])
        found.append(p)
    return np.array(found)


def tilted(tree: Tree, policy: Any, temperature: float, prior: str, leaf: dict[Said, float]) -> np.ndarray:
    """prior(row) exp(R(row) / temperature) / Z; what a cut row still expects counts as reward."""
    found = []
    for response in tree.responses:
        total, p = leaf.get(response, 0.0), 1.0
        for t, token in enumerate(response):
            total += tree.reward[response[:t]][token]
            p *= prior_of(tree, policy, response[:t])[token] if prior == "reference" else 1.0
        found.append(p * np.exp(total / temperature))
    return np.array(found) / sum(found)


@each_tree
@pytest.mark.parametrize("prior", ["uniform", "reference"])
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_soft_q_rests_at_the_tilted_prior(tree: Tree, prior: Any, temperature: float) -> None:
    acting = Acting(temperature=temperature, epsilon=0.0)
    algorithm = QLearning(acting=acting, backup="soft", prior=prior, target=TargetNetwork(polyak=1.0))
    policy = tree.build(algorithm)

    def soft(said: Said, q: np.ndarray) -> float:
        weight = prior_of(tree, policy, said) if prior == "reference" else np.ones(3)
        return float(temperature * np.log((weight * np.exp(q / temperature)).sum()))

    table = tree.read(policy)
    leaf = {said: soft(said, table[said]) for said in tree.leaves()}
    expected = tree.solve(1.0, soft, leaf)
    tree.fit(algorithm, policy, steps=4)
    close(tree.read(policy), expected)
    with torch.no_grad():
        exact = tilted(tree, policy, temperature, prior, leaf)
        np.testing.assert_allclose(row_probabilities(tree, policy), exact, atol=1e-10)
    is_at_rest(tree, algorithm, policy)


def test_the_prior_does_not_move() -> None:
    tree = TREES["plain"]
    acting = Acting(temperature=1.0, epsilon=0.0)
    algorithm = QLearning(acting=acting, backup="soft", prior="reference")
    policy: Any = tree.build(algorithm)
    before = policy.towers["prior"].table.weight.clone()
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    algorithm.loss(tree.data, policy).sum.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert torch.equal(policy.towers["prior"].table.weight, before)
    assert set(policy.parameter_groups()) == {"backbone", "q"}


# CQL


def conservative_optimum(mu: np.ndarray, y: np.ndarray, alpha: float) -> np.ndarray:
    """Minimum over Q of sum_a mu_a [1/2 (Q_a - y_a)^2 + alpha (logsumexp Q - Q_a)], by Newton's method."""
    q = y.copy()
    for _ in range(50):
        p = np.exp(q - q.max()) / np.exp(q - q.max()).sum()
        gradient = mu * (q - y) + alpha * (p - mu)
        hessian = np.diag(mu) + alpha * (np.diag(p) - np.outer(p, p))
        q = q - np.linalg.solve(hessian, gradient)
    return q


@each_tree
@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_cql_rests_where_the_regulariser_balances_the_error(tree: Tree, alpha: float) -> None:
    target = TargetNetwork(polyak=1.0)
    algorithm = QLearning(acting=GREEDY, gamma=0.9, backup="double", conservative=alpha, target=target)
    policy = tree.build(algorithm)
    leaf = at_the_cuts(tree, tree.read(policy))
    found = tree.solve(0.9, largest, leaf, lambda said, y: conservative_optimum(tree.mu(said), y, alpha))

    # What the card says: Q = y - alpha (softmax(Q) / mu - 1), here at the last choice, where y is the reward.
    last = (0, 1)
    if not tree.cut:
        p = np.exp(found[last]) / np.exp(found[last]).sum()
        stated = tree.reward[last] - alpha * (p / tree.mu(last) - 1)
        np.testing.assert_allclose(found[last], stated, atol=1e-12)

    tree.write(policy, found)
    algorithm.target.start(policy)  # type: ignore[union-attr]
    is_at_rest(tree, algorithm, policy)


def test_cql_gets_there() -> None:
    tree = TREES["plain"]
    algorithm = QLearning(acting=GREEDY, gamma=0.9, conservative=0.3, target=TargetNetwork(polyak=1.0))
    policy = tree.build(algorithm)
    tree.fit(algorithm, policy, steps=150, rate=0.6)
    expected = tree.solve(0.9, largest, None, lambda said, y: conservative_optimum(tree.mu(said), y, 0.3))
    close(tree.read(policy), expected, 1e-7)
