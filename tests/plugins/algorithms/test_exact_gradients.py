"""The mean gradient over every possible batch, against the exact gradient of what is maximised."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from feedtune_plugins.algorithms import (
    GAE,
    Clip,
    KLPenalty,
    MonteCarlo,
    PolicyGradient,
    SupervisedTuning,
)


def reinforce(baseline: str = "none", gamma: float = 1.0, **options: Any) -> PolicyGradient:
    return PolicyGradient(
        advantage=MonteCarlo(baseline=baseline, gamma=gamma),  # type: ignore[arg-type]
        **{"aggregation": "row_sum", **options},
    )


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.abs().max() > 1e-3  # the comparison says something
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)


def minus_gradient_of_return(world: Any, policy: Any, gamma: float = 1.0) -> torch.Tensor:
    return -world.exact_gradient(policy, lambda: (world.row_logps(policy).exp() * world.returns(gamma)).sum())


def test_the_worlds_probabilities_sum_to_one(world: Any) -> None:
    policy = world.policy(reinforce())
    assert world.row_logps(policy).exp().sum().item() == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(("baseline", "rows"), [("none", 1), ("none", 2), ("leave_one_out", 2), ("value", 1)])
def test_reinforce_is_the_gradient_of_the_expected_return(
    world: Any, baseline: str, rows: int, gamma: float, temperature: float
) -> None:
    algorithm = reinforce(baseline, gamma, temperature=temperature)
    policy = world.policy(algorithm)
    close(world.expected_gradient(algorithm, policy, rows), minus_gradient_of_return(world, policy, gamma))


def test_leave_one_out_of_three(world: Any) -> None:
    algorithm = reinforce("leave_one_out")
    policy = world.policy(algorithm)
    close(world.expected_gradient(algorithm, policy, 3), minus_gradient_of_return(world, policy))


@pytest.mark.parametrize("rows", [2, 3])
def test_the_mean_baseline_gives_its_share_of_the_gradient(world: Any, rows: int) -> None:
    algorithm = reinforce("mean")
    policy = world.policy(algorithm)
    expected = (1 - 1 / rows) * minus_gradient_of_return(world, policy)
    close(world.expected_gradient(algorithm, policy, rows), expected)


def test_the_running_baseline_never_sees_its_own_rollout(world: Any) -> None:
    algorithm = reinforce("running")
    policy = world.policy(algorithm)
    exp = world.complete(world.experience([0, 3, 5]), algorithm, policy)
    _, first = algorithm.prepare(exp, policy)
    assert first["rollout/baseline"] == 0.0
    mean = exp.score.mean().item()
    state = {name: value.clone() for name, value in algorithm.state_dict().items()}
    assert state["advantage.running"].item() == pytest.approx(mean)

    # With whatever it remembers, the gradient over all next rollouts is exact.
    p = world.row_logps(policy).detach().exp()
    table = policy.backbone.table.weight
    total = torch.zeros_like(table)
    for row in range(7):
        algorithm.load_state_dict(state)
        prepared, metrics = algorithm.prepare(world.experience([row]), policy)
        assert metrics["rollout/baseline"] == pytest.approx(mean)
        loss = algorithm.loss(prepared, policy)
        total += p[row] * torch.autograd.grad(loss.sum / loss.denominator, [table])[0]
    close(total, minus_gradient_of_return(world, policy))


def test_gae_is_exact_for_gamma_and_lambda_one(world: Any) -> None:
    """With any values; at lambda .5 a wrong critic biases it, which is what makes the test one."""
    exact = None
    for lam in (1.0, 0.5):
        algorithm = PolicyGradient(advantage=GAE(lam=lam, whiten=False), aggregation="row_sum")
        policy = world.policy(algorithm)
        exact = minus_gradient_of_return(world, policy)
        found = world.expected_gradient(algorithm, policy, 1)
        if lam == 1.0:
            close(found, exact)
        else:
            assert (found - exact).abs().max() > 1e-2


def test_gae_is_exact_for_any_lambda_with_the_right_values(world: Any) -> None:
    algorithm = PolicyGradient(advantage=GAE(lam=0.3, whiten=False), aggregation="row_sum")
    policy = world.policy(algorithm)
    head = policy.heads["value"].weight.data.zero_()
    per_state = world.distributions(policy)
    rewards = dict(zip(map(tuple, world.responses), world.rewards, strict=True))
    q = {}
    for first in (0, 1):
        # V of the state after the first token: bucket of (prompt, first) in base 4.
        p = per_state[(first,)].detach().exp()
        after = sum(p[b] * rewards[first, b][1] for b in range(3))
        head[2 + 4 * (first + 1)] = after
        q[first] = rewards[first, 0][0] + after
    p = per_state[()].detach().exp()
    head[0 + 4 * 2] = p[0] * q[0] + p[1] * q[1] + p[2] * rewards[(2,)][0]
    close(world.expected_gradient(algorithm, policy, 1), minus_gradient_of_return(world, policy))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(("baseline", "rows"), [("none", 1), ("leave_one_out", 2)])
def test_k1_in_the_reward_is_the_gradient_of_the_rows_kl(
    world: Any, baseline: str, rows: int, temperature: float
) -> None:
    algorithm = reinforce(baseline, kl=KLPenalty(coefficient=0.3), temperature=temperature)
    policy = world.policy(algorithm)

    def objective() -> torch.Tensor:
        logp = world.row_logps(policy)
        reference = world.row_logps(policy, world.reference_weights)
        return (logp.exp() * (world.returns(1.0) - 0.3 * (logp - reference))).sum()

    close(world.expected_gradient(algorithm, policy, rows), -world.exact_gradient(policy, objective))


def states_frozen(world: Any, policy: Any, of_state: Any) -> torch.Tensor:
    """Gradient of a sum over visited states, whose probabilities are held."""
    said = ((), (0,), (1,))
    p = world.distributions(policy)[()].detach().exp()
    visited = {(): 1.0, (0,): p[0], (1,): p[1]}

    def objective() -> torch.Tensor:
        mine = world.distributions(policy)
        theirs = world.distributions(policy, world.reference_weights)
        return sum(visited[s] * of_state(mine[s], theirs[s]) for s in said)  # type: ignore[return-value]

    return world.exact_gradient(policy, objective)


def no_reward(world: Any) -> None:
    world.rewards = [torch.zeros_like(r) for r in world.rewards]


@pytest.mark.parametrize(
    ("estimator", "of_state"),
    [
        ("k2", lambda p, q: (p.exp() * (p - q)).sum()),  # KL(policy, reference)
        ("k3", lambda p, q: (q.exp() * (q - p)).sum()),  # KL(reference, policy)
    ],
)
@pytest.mark.parametrize("clip", [None, Clip()])
def test_kl_in_the_loss_is_the_gradient_of_the_stated_divergence(
    world: Any, estimator: str, of_state: Any, clip: Clip | None
) -> None:
    no_reward(world)
    penalty = KLPenalty(coefficient=0.3, place="loss", estimator=estimator)  # type: ignore[arg-type]
    algorithm = reinforce(kl=penalty, surrogate=clip)
    policy = world.policy(algorithm)
    close(world.expected_gradient(algorithm, policy, 1), 0.3 * states_frozen(world, policy, of_state))


def test_kl_in_the_loss_stands_beside_the_return(world: Any) -> None:
    algorithm = reinforce(kl=KLPenalty(coefficient=0.3, place="loss", estimator="k3"))
    policy = world.policy(algorithm)
    penalty = 0.3 * states_frozen(world, policy, lambda p, q: (q.exp() * (q - p)).sum())
    close(world.expected_gradient(algorithm, policy, 1), minus_gradient_of_return(world, policy) + penalty)


def test_the_entropy_bonus_holds_the_visited_states(world: Any) -> None:
    no_reward(world)
    algorithm = reinforce(entropy=0.2)
    policy = world.policy(algorithm)
    expected = -0.2 * states_frozen(world, policy, lambda p, _: -(p.exp() * p).sum())
    close(world.expected_gradient(algorithm, policy, 1), expected)


def test_the_clipped_ratio_starts_as_reinforce(world: Any) -> None:
    """Where old and new policy are one, PPO's gradient is the policy gradient, dual clip or not."""
    for clip in (Clip(), Clip(dual=3.0)):
        algorithm = reinforce("leave_one_out", surrogate=clip)
        policy = world.policy(algorithm)
        close(world.expected_gradient(algorithm, policy, 2), minus_gradient_of_return(world, policy))


def test_supervised_tuning_is_cross_entropy(world: Any) -> None:
    algorithm = SupervisedTuning()
    policy = world.policy(algorithm)
    exp = world.experience([0, 2, 6])
    loss = algorithm.loss(exp, policy)
    table = policy.backbone.table.weight
    (found,) = torch.autograd.grad(loss.sum / loss.denominator, [table])

    hidden, _ = policy.backbone(exp.tokens, exp.mask)
    logits = policy.backbone.unembed(hidden)[:, :-1]
    targets = torch.where(exp.action, exp.tokens, -100)[:, 1:]
    theirs = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    (expected,) = torch.autograd.grad(theirs, [table])
    torch.testing.assert_close(loss.sum / loss.denominator, theirs)
    close(found, expected)
    assert float(loss.metrics["loss/policy"]) == pytest.approx(theirs.item())
