"""Two ways to one policy: values that are learnt, and preferences that are fitted, in the same world.

Of rewards r and a reference, soft Q-learning at temperature beta and DPO at beta, on Bradley-Terry labels of
r, both end at pi_ref exp(r / beta) / Z; here they are put side by side.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from feedtune.experience import from_rows
from feedtune.policy import Policy
from feedtune_plugins.algorithms import Acting, DirectPreference, QLearning, TargetNetwork


def row_probabilities(world: Any, policy: Policy) -> Tensor:
    """Of the seven responses, token by token from the distribution that acts, `[7]`."""
    found = []
    for response in world.responses:
        tokens = torch.tensor([[1, *response]])
        hidden, _ = policy(tokens, torch.ones_like(tokens, dtype=torch.bool))
        logp = policy.action_logits(hidden)[0, :-1].log_softmax(-1)
        found.append(logp[range(len(response)), response].sum().exp())
    return torch.stack(found).detach()


def soft_q(world: Any, beta: float) -> Policy:
    """Fitted to every response once: each entry of the table goes all the way to its mean target."""
    acting = Acting(temperature=beta, epsilon=0.0)
    target = TargetNetwork(polyak=1.0)
    algorithm = QLearning(acting=acting, backup="soft", prior="reference", target=target)
    policy = algorithm.build_policy(world.make_backbone)
    policy.towers["prior"].table.weight.data = world.reference_weights.clone()  # type: ignore[union-attr]
    algorithm.setup(policy)
    exp = world.experience(range(7))
    table = policy.heads["q"].weight
    assert isinstance(table, Tensor)
    # Contexts as in `World.distributions`: after the prompt, after it and 0, after it and 1.
    visits = torch.ones_like(table)
    visits[8], visits[6], visits[10] = torch.tensor([3.0, 3.0, 1.0]), 1.0, 1.0
    for _ in range(3):  # one for each token, and one that changes nothing
        (gradient,) = torch.autograd.grad(algorithm.loss(exp, policy).sum, [table])
        table.data -= gradient / visits
        algorithm.after_step(policy)
    (left,) = torch.autograd.grad(algorithm.loss(exp, policy).sum, [table])
    assert left.abs().max() < 1e-12
    return policy


def fitted_to_preferences(world: Any, beta: float) -> Policy:
    """The minimiser of DPO's exact expected loss over all ordered pairs, from another policy."""
    algorithm = DirectPreference(beta=beta)
    policy: Policy = world.policy(algorithm)
    rewards, ready = world.returns(1.0), []
    for a, b in itertools.permutations(range(7), 2):
        said = [world.responses[a], world.responses[b]]
        actions = [[False, *[True] * len(r)] for r in said]
        exp = from_rows([[1, *r] for r in said], actions, scores=[1.0, 0.0], group=[0, 0])
        exp, _ = algorithm.prepare(world.complete(exp, algorithm, policy), policy)
        ready.append((torch.sigmoid(rewards[a] - rewards[b]), exp))
    options = {"max_iter": 300, "tolerance_grad": 1e-13, "tolerance_change": 1e-16}
    optimizer = torch.optim.LBFGS(policy.parameters(), line_search_fn="strong_wolfe", **options)

    def closure() -> float:
        optimizer.zero_grad()
        losses = [(preferred, algorithm.loss(exp, policy)) for preferred, exp in ready]
        loss = torch.stack([preferred * found.sum for preferred, found in losses]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return policy


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_soft_q_and_dpo_end_at_the_same_policy(world: Any, beta: float) -> None:
    start = world.policy(DirectPreference(beta=beta))
    by_values = row_probabilities(world, soft_q(world, beta))
    by_preferences = row_probabilities(world, fitted_to_preferences(world, beta))
    reference = world.row_logps(start, world.reference_weights)
    exact = (reference + world.returns(1.0) / beta).softmax(0).detach()
    torch.testing.assert_close(by_values, by_preferences, atol=1e-6, rtol=0)
    torch.testing.assert_close(by_values, exact, atol=1e-12, rtol=0)
    torch.testing.assert_close(by_preferences, exact, atol=1e-6, rtol=0)
    for other in (row_probabilities(world, start), reference.exp().detach()):  # neither began there
        assert (other - exact).abs().max() > 0.05
