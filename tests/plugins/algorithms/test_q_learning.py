"""Q-learning: a table against a dictionary, targets by hand, and the way to Q* on a task that is solved."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune.sampling import sample
from feedtune_plugins.algorithms import Acting, LinearEpsilon, QLearning, QPolicy, TargetNetwork
from feedtune_plugins.backbones.ngram import NGram
from feedtune_plugins.buffers import Replay

T, F = True, False


def q_learning(**options: Any) -> QLearning:
    """Epsilon-greedy, without a target network."""
    return QLearning(**{"acting": Acting(temperature=0.0, epsilon=0.1), **options})


def build(algorithm: QLearning, n: int = 3, vocabulary: int = 3) -> QPolicy:
    """A float64 Q-table over the last n - 1 tokens, with its target network set up."""
    policy = algorithm.build_policy(lambda: NGram(vocab_size=vocabulary, n=n).double())
    algorithm.setup(policy)
    return policy


def q_weights(policy: QPolicy) -> Tensor:
    weight = policy.heads["q"].weight
    assert isinstance(weight, Tensor)
    return weight.data


def target_weights(algorithm: QLearning) -> Tensor:
    weight = algorithm.target.heads["q"].weight  # type: ignore[union-attr]
    assert isinstance(weight, Tensor)
    return weight.data


def bucket(policy: QPolicy, context: tuple[int, ...]) -> int:
    """Row of the table for the state after these tokens."""
    tokens = torch.tensor([context])
    hidden, _ = policy(tokens, torch.ones_like(tokens, dtype=torch.bool))
    return int(hidden[0, -1, 0])


def one_transition(context: tuple[int, int], action: int, reward: float, done: bool) -> Experience:
    exp = from_rows([[*context, action]], [[F, F, T]], scores=[0.0], done=done)
    return replace(exp, reward=torch.tensor([[0.0, 0.0, reward]], dtype=torch.float64))


@pytest.mark.parametrize(("alpha", "ulps"), [(0.5, 0), (0.25, 0), (0.3, 1), (0.01, 1)])
def test_one_step_is_watkins_update_of_a_dictionary(alpha: float, ulps: int) -> None:
    """Plain SGD with lr = alpha on one transition, whose loss is 1/2 (Q - y)^2."""
    rng = random.Random(1)
    gamma = 0.9
    algorithm = q_learning(gamma=gamma, aggregation="sum")
    policy = build(algorithm)
    optimizer = torch.optim.SGD(policy.parameters(), lr=alpha)
    contexts = list(itertools.product(range(3), repeat=2))
    places = [bucket(policy, context) for context in contexts]
    for _ in range(60):
        table = dict(zip(contexts, q_weights(policy)[places].tolist(), strict=True))
        context, action, done = rng.choice(contexts), rng.randrange(3), rng.random() < 0.4
        reward = rng.gauss(0, 1)
        loss = algorithm.loss(one_transition(context, action, reward, done), policy)
        assert float(loss.denominator) == 1
        optimizer.zero_grad()
        (loss.sum / loss.denominator).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        algorithm.after_step(policy)

        following = 0.0 if done else max(table[context[1], action])
        before = table[context][action]
        step = alpha * (reward + gamma * following - before)
        table[context][action] = before + step
        slack = ulps * max(map(math.ulp, (before, step, before + step)))
        found = q_weights(policy)[places].tolist()
        for row, c in zip(found, contexts, strict=True):
            assert all(abs(entry - exact) <= slack for entry, exact in zip(row, table[c], strict=True))
    assert q_weights(policy).abs().max() > alpha  # it has learnt something


def test_the_loss_is_a_sum_whose_targets_precede_the_step() -> None:
    """Several rows that visit the same entries: each adds alpha (y - Q), all from the table before."""
    algorithm = q_learning(gamma=0.5, aggregation="sum")
    policy = build(algorithm)
    start = torch.arange(48.0, dtype=torch.float64).view(16, 3) / 8
    q_weights(policy).copy_(start)
    rows = [[1, 0, 1], [1, 0, 1], [1, 0, 2]]  # prompt 1, two actions each
    exp = from_rows(rows, [[F, T, T]] * 3, scores=[1.0, 2.0, 3.0])
    loss = algorithm.loss(replace(exp, reward=exp.reward.double()), policy)
    assert float(loss.denominator) == 1
    assert float(q_learning().loss(exp, policy).denominator) == 6  # as a mean: over the action tokens
    loss.sum.backward()  # type: ignore[no-untyped-call]
    first, second = bucket(policy, (1,)), bucket(policy, (1, 0))
    q = start.tolist()
    expected = torch.zeros(16, 3, dtype=torch.float64)
    expected[first, 0] = 3 * (q[first][0] - 0.5 * max(q[second]))  # not terminal: no reward yet
    expected[second, 1] = (q[second][1] - 1) + (q[second][1] - 2)  # terminal: the reward alone
    expected[second, 2] = q[second][2] - 3
    gradient = policy.heads["q"].weight.grad
    torch.testing.assert_close(gradient, expected)
    assert float(loss.metrics["loss/q"]) == pytest.approx(loss.sum.item() / 6)


def test_double_q_values_by_the_target_what_the_online_net_prefers() -> None:
    # State s' after "0 1". Online Q: 1, 2, 0 (prefers 1). Target: 5, -1, 7.
    # Plain: r + gamma * 7 = 1 + 3.5. Double: r + gamma * -1 = 1 - .5. Q(s, a) is 0: loss y^2 / 2.
    for backup, y in (("max", 4.5), ("double", 0.5)):
        algorithm = q_learning(gamma=0.5, backup=backup, target=TargetNetwork())
        policy = build(algorithm)
        state = bucket(policy, (0, 1))
        q_weights(policy)[state] = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
        target_weights(algorithm)[state] = torch.tensor([5.0, -1.0, 7.0], dtype=torch.float64)
        loss = algorithm.loss(one_transition((2, 0), 1, 1.0, done=False), policy)
        assert loss.sum.item() == pytest.approx(y**2 / 2)
        # Within a row too: prompt 0, first action 1 (leads to s'), then 0.
        exp = from_rows([[0, 1, 0]], [[F, T, T]], scores=[3.0])
        q = q_weights(policy)
        expected = (q[bucket(policy, (0,)), 1].item() - 0.5 * (7 if backup == "max" else -1)) ** 2 / 2
        expected += (1.0 - 3.0) ** 2 / 2
        assert algorithm.loss(exp, policy).sum.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("backup", "target"),
    [("max", False), ("max", True), ("double", True), ("soft", False), ("soft", True)],
)
def test_no_gradient_flows_into_targets(backup: str, target: bool) -> None:
    acting = Acting(temperature=1.0, epsilon=0.0)
    algorithm = q_learning(acting=acting, backup=backup, target=TargetNetwork() if target else None)
    policy = build(algorithm)
    q_weights(policy).normal_(generator=torch.Generator().manual_seed(0))
    algorithm.loss(one_transition((0, 1), 2, 1.0, done=False), policy).sum.backward()  # type: ignore[no-untyped-call]
    gradient = policy.heads["q"].weight.grad
    assert isinstance(gradient, Tensor)
    assert gradient.nonzero().tolist() == [[bucket(policy, (0, 1)), 2]]
    assert all(p.grad is None for p in algorithm.parameters())


def test_observations_between_turns_take_no_step() -> None:
    """prompt, action, observation, action: the first looks ahead to the state after the observation."""
    algorithm = q_learning(gamma=1.0, target=TargetNetwork())
    policy = build(algorithm, n=5)
    before_second = bucket(policy, (0, 1, 2))
    target_weights(algorithm)[before_second] = torch.tensor([4.0, 0, 0]).double()
    exp = from_rows([[0, 1, 2, 0]], [[F, T, F, T]], scores=[1.0])
    # y0 = 4, y1 = 1, Q = 0: (16 + 1) / 2
    assert algorithm.loss(exp, policy).sum.item() == pytest.approx(8.5)


def test_the_conservative_term_by_hand() -> None:
    # Q(s, .) = 0, log 2, 0 and the token is 1: logsumexp - Q = log 4 - log 2 = log 2. y = 1.
    algorithm = q_learning(conservative=3.0)
    policy = build(algorithm)
    q_weights(policy)[bucket(policy, (0, 1)), 1] = math.log(2)
    loss = algorithm.loss(one_transition((0, 1), 1, 1.0, done=True), policy)
    assert loss.sum.item() == pytest.approx((math.log(2) - 1) ** 2 / 2 + 3 * math.log(2))
    assert float(loss.metrics["loss/conservative"]) == pytest.approx(math.log(2))


def test_metrics_tell_the_sampled_from_the_greedy() -> None:
    """Greedy could be perfect while sampling is near chance: how probable the best token is says which."""
    algorithm = q_learning(acting=Acting(temperature=1.0, epsilon=0.25))
    policy = build(algorithm)
    q_weights(policy)[bucket(policy, (0, 1)), 1] = math.log(2)
    loss = algorithm.loss(one_transition((0, 1), 0, 1.0, done=True), policy)
    found = {name: float(value) for name, value in loss.metrics.items()}
    assert found == pytest.approx(
        {
            "loss/q": 0.5,
            "policy/q": 0.0,
            "policy/q_max": math.log(2),
            "policy/greedy_probability": 0.75 / 2 + 0.25 / 3,  # softmax 1/4, 1/2, 1/4
            "policy/epsilon": 0.25,
        }
    )


def test_the_target_follows_slowly_or_by_copies() -> None:
    def targets(**options: Any) -> list[float]:
        algorithm = q_learning(target=TargetNetwork(**options))
        policy = build(algorithm)
        found = []
        for _ in range(4):
            q_weights(policy).add_(8.0)
            algorithm.after_step(policy)
            found.append(target_weights(algorithm)[0, 0].item())
        return found

    # Q is 8, 16, 24, 32 after the steps; the target moves a quarter of the way: 2, 2 + 14/4, ...
    assert targets(polyak=0.25) == [2.0, 5.5, 10.125, 15.59375]
    assert targets(polyak=1.0, every=2) == [0.0, 16.0, 16.0, 32.0]
    assert targets(polyak=0.5, every=3) == [0.0, 0.0, 12.0, 12.0]


def test_a_target_stays_frozen_and_in_evaluation_mode() -> None:
    algorithm = q_learning(target=TargetNetwork())
    build(algorithm)
    algorithm.train()
    assert not any(part.training for part in algorithm.target.modules())  # type: ignore[union-attr]
    assert not any(p.requires_grad for p in algorithm.parameters())


def test_epsilon_target_and_step_count_travel_in_checkpoints() -> None:
    def make() -> QLearning:
        epsilon = LinearEpsilon(start=1.0, end=0.5, steps=4)
        acting = Acting(temperature=0.0, epsilon=epsilon)
        return q_learning(acting=acting, target=TargetNetwork(polyak=0.5, every=2))

    algorithm, restored = make(), make()
    policy, twin = build(algorithm), build(restored)
    assert float(policy.epsilon) == 1.0
    q_weights(policy).add_(8.0)
    algorithm.after_step(policy)
    twin.load_state_dict(policy.state_dict())
    restored.load_state_dict(algorithm.state_dict())
    assert float(twin.epsilon) == 0.875
    assert twin.config["epsilon"] == 0.875
    restored.after_step(twin)  # the second step: the target moves
    assert target_weights(restored)[0, 0] == 4.0
    assert [float(twin.epsilon), *(after(restored, twin) for _ in range(3))] == [0.75, 0.625, 0.5, 0.5]


def after(algorithm: QLearning, policy: QPolicy) -> float:
    algorithm.after_step(policy)
    return float(policy.epsilon)


def test_a_batch_without_actions_has_no_loss() -> None:
    algorithm = q_learning(conservative=1.0, target=TargetNetwork())
    policy = build(algorithm)
    loss = algorithm.loss(from_rows([[0, 1]], [[F, F]]), policy)
    (loss.sum / loss.denominator).backward()  # type: ignore[no-untyped-call]
    assert loss.sum == 0
    assert not policy.heads["q"].weight.grad.any()  # type: ignore[union-attr]
    assert all(math.isfinite(float(value)) for value in loss.metrics.values())


# To Q*: prompt 1, at most two tokens, 2 ends. Rewards by token.
FIRST, SECOND = [0.5, -1.0, 0.25], [[1.0, -2.0, 0.0], [0.0, 4.0, 1.0]]
GAMMA = 0.5
# Q*(1, a) = FIRST[a] + GAMMA max SECOND[a], and FIRST[2] for the end; Q*(1 a, b) = SECOND[a][b]
BEST_FIRST = [0.5 + 0.5 * 1.0, -1.0 + 0.5 * 4.0, 0.25]


def rollout(policy: QPolicy, generator: torch.Generator) -> Experience:
    responses = sample(policy, [[1]], max_new_tokens=2, eos_ids=[2], generator=generator, group_size=16)
    exp = from_rows([[1, *r.tokens] for r in responses], [[F, *[T] * len(r.tokens)] for r in responses])
    reward = exp.reward.double()
    for row, response in enumerate(responses):
        first, *rest = response.tokens
        reward[row, 1] = FIRST[first]
        for token in rest:
            reward[row, 2] = SECOND[first][token]
    return replace(exp, reward=reward)


@pytest.mark.parametrize("backup", ["max", "double"])
def test_replay_reaches_the_optimal_values(backup: str) -> None:
    acting = Acting(temperature=1.0, epsilon=0.5)
    algorithm = q_learning(
        acting=acting, gamma=GAMMA, backup=backup, target=TargetNetwork(polyak=0.5, every=2)
    )
    policy = build(algorithm, n=4)  # n - 1 = prompt + response: the table knows the whole row
    optimizer = torch.optim.SGD(policy.parameters(), lr=4.0)
    buffer = Replay(capacity=128, minibatch_size=32, updates=4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        buffer.add(rollout(policy, generator))
        for exp in buffer.minibatches(generator):
            loss = algorithm.loss(exp, policy)
            optimizer.zero_grad()
            (loss.sum / loss.denominator).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            algorithm.after_step(policy)
    q = q_weights(policy)
    assert q[bucket(policy, (1,))].tolist() == pytest.approx(BEST_FIRST, abs=1e-9)
    for first in (0, 1):
        assert q[bucket(policy, (1, first))].tolist() == pytest.approx(SECOND[first], abs=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: q_learning(gamma=2.0), "algorithm.gamma: expected a number in [0, 1], got 2.0"),
        (lambda: q_learning(n_step=0), "algorithm.n_step: expected at least 1, got 0"),
        (lambda: q_learning(conservative=-1.0), "algorithm.conservative: expected at least 0, got -1.0"),
        (
            lambda: q_learning(backup="dubble"),
            "algorithm.backup: expected one of max, double, soft, got 'dubble'. Did you mean 'double'?",
        ),
        (
            lambda: q_learning(backup="soft"),
            "algorithm.acting.temperature: algorithm.backup=soft needs a number above 0, got 0",
        ),
        (
            lambda: q_learning(backup="soft", acting=Acting(), n_step=2),
            "algorithm.n_step: with algorithm.backup=soft expected 1, got 2: the rewards in between would "
            "lack their entropy",
        ),
        (
            lambda: q_learning(prior="reference"),
            "algorithm.prior: only algorithm.backup=soft has a use for it; leave it null",
        ),
        (
            lambda: q_learning(backup="double"),
            "algorithm.backup: double without algorithm.target is max, for Q then judges its own choice; "
            "choose max, or give a target",
        ),
        (
            lambda: TargetNetwork(polyak=0.0),
            "algorithm.target.polyak: expected a number in (0, 1], got 0.0",
        ),
        (lambda: TargetNetwork(every=0), "algorithm.target.every: expected at least 1, got 0"),
        (
            lambda: Acting(temperature=-1.0),
            "algorithm.acting.temperature: expected at least 0, got -1.0",
        ),
        (lambda: Acting(epsilon=1.5), "algorithm.acting.epsilon: expected a number in [0, 1], got 1.5"),
        (
            lambda: LinearEpsilon(end=-1.0),
            "algorithm.acting.epsilon.end: expected a number in [0, 1], got -1.0",
        ),
        (
            lambda: LinearEpsilon(steps=0),
            "algorithm.acting.epsilon.steps: expected a number above 0, got 0",
        ),
    ],
)
def test_wrong_values_are_refused_by_name(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == message
