"""Q-learning: a table against a dictionary, targets by hand, and the way to Q* on a task that is solved."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from feedtune.errors import UserError
from feedtune.experience import Experience, from_rows
from feedtune.sampling import sample
from feedtune_plugins.algorithms import QLearning, QPolicy
from feedtune_plugins.backbones.ngram import NGram
from feedtune_plugins.buffers import Replay

T, F = True, False


def build(algorithm: QLearning, n: int = 3, vocabulary: int = 3) -> QPolicy:
    """A float64 Q-table over the last n - 1 tokens, with its target network set up."""
    policy = algorithm.build_policy(lambda: NGram(vocab_size=vocabulary, n=n).double())
    algorithm.setup(policy)
    return policy


def q_weights(policy: QPolicy) -> Tensor:
    weight = policy.heads["q"].weight
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
    """Plain SGD with lr = alpha on one transition, whose loss is 1/2 (Q - y)^2 over a token count of 1."""
    rng = random.Random(1)
    gamma = 0.9
    algorithm = QLearning(gamma=gamma, double=False, polyak=1.0)
    policy = build(algorithm)
    optimizer = torch.optim.SGD(policy.parameters(), lr=alpha)
    contexts = list(itertools.product(range(3), repeat=2))
    for _ in range(60):
        table = {c: q_weights(policy)[bucket(policy, c)].tolist() for c in contexts}
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
        for c in contexts:
            for a in range(3):
                assert abs(q_weights(policy)[bucket(policy, c), a].item() - table[c][a]) <= slack
    assert q_weights(policy).abs().max() > alpha  # it has learnt something


def test_the_loss_is_a_sum_whose_targets_precede_the_step() -> None:
    """Several rows that visit the same entries: each adds alpha (y - Q), all from the table before."""
    algorithm = QLearning(gamma=0.5, double=False, polyak=1.0)
    policy = build(algorithm)
    start = torch.arange(48.0, dtype=torch.float64).view(16, 3) / 8
    q_weights(policy).copy_(start)
    algorithm.setup(policy)
    rows = [[1, 0, 1], [1, 0, 1], [1, 0, 2]]  # prompt 1, two actions each
    exp = from_rows(rows, [[F, T, T]] * 3, scores=[1.0, 2.0, 3.0])
    loss = algorithm.loss(replace(exp, reward=exp.reward.double()), policy)
    assert float(loss.denominator) == 6
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
    for double, y in ((False, 4.5), (True, 0.5)):
        algorithm = QLearning(gamma=0.5, double=double)
        policy = build(algorithm)
        state = bucket(policy, (0, 1))
        q_weights(policy)[state] = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
        target = algorithm.target.policy
        assert isinstance(target, QPolicy)
        q_weights(target)[state] = torch.tensor([5.0, -1.0, 7.0], dtype=torch.float64)
        loss = algorithm.loss(one_transition((2, 0), 1, 1.0, done=False), policy)
        assert loss.sum.item() == pytest.approx(y**2 / 2)
        # Within a row too: prompt 0, first action 1 (leads to s'), then 0.
        exp = from_rows([[0, 1, 0]], [[F, T, T]], scores=[3.0])
        q = q_weights(policy)
        expected = (q[bucket(policy, (0,)), 1].item() - 0.5 * (7 if not double else -1)) ** 2 / 2
        expected += (1.0 - 3.0) ** 2 / 2
        assert algorithm.loss(exp, policy).sum.item() == pytest.approx(expected)


def test_no_gradient_flows_into_targets() -> None:
    algorithm = QLearning(double=True)
    policy = build(algorithm)
    q_weights(policy).normal_(generator=torch.Generator().manual_seed(0))
    algorithm.loss(one_transition((0, 1), 2, 1.0, done=False), policy).sum.backward()  # type: ignore[no-untyped-call]
    gradient = policy.heads["q"].weight.grad
    assert isinstance(gradient, Tensor)
    assert gradient.nonzero().tolist() == [[bucket(policy, (0, 1)), 2]]
    assert all(p.grad is None for p in algorithm.target.parameters())


def test_observations_between_turns_take_no_step() -> None:
    """prompt, action, observation, action: the first looks ahead to the state after the observation."""
    algorithm = QLearning(gamma=1.0, double=False)
    policy = build(algorithm, n=5)
    before_second = bucket(policy, (0, 1, 2))
    q_weights(algorithm.target.policy)[before_second] = torch.tensor([4.0, 0, 0]).double()  # type: ignore[arg-type]
    exp = from_rows([[0, 1, 2, 0]], [[F, T, F, T]], scores=[1.0])
    # y0 = 4, y1 = 1, Q = 0: (16 + 1) / 2
    assert algorithm.loss(exp, policy).sum.item() == pytest.approx(8.5)


def test_the_target_follows_slowly_or_by_copies() -> None:
    def targets(**options: float) -> list[float]:
        algorithm = QLearning(**options)  # type: ignore[arg-type]
        policy = build(algorithm)
        found = []
        for _ in range(4):
            q_weights(policy).add_(8.0)
            algorithm.after_step(policy)
            found.append(q_weights(algorithm.target.policy)[0, 0].item())  # type: ignore[arg-type]
        return found

    # Q is 8, 16, 24, 32 after the steps; the target moves a quarter of the way: 2, 2 + 14/4, ...
    assert targets(polyak=0.25) == [2.0, 5.5, 10.125, 15.59375]
    assert targets(polyak=1.0, target_every=2) == [0.0, 16.0, 16.0, 32.0]
    assert targets(polyak=0.5, target_every=3) == [0.0, 0.0, 12.0, 12.0]


def test_target_and_step_count_travel_in_checkpoints() -> None:
    algorithm = QLearning(polyak=0.5, target_every=2)
    policy = build(algorithm)
    q_weights(policy).add_(8.0)
    algorithm.after_step(policy)
    restored = QLearning(polyak=0.5, target_every=2)
    twin = build(restored)
    twin.load_state_dict(policy.state_dict())
    restored.load_state_dict(algorithm.state_dict())
    restored.after_step(twin)  # the second step: the target moves
    assert q_weights(restored.target.policy)[0, 0] == 4.0  # type: ignore[arg-type]


def test_the_policy_mixes_a_softmax_with_uniform_draws() -> None:
    # Q / temperature = 0, log 2, 0: softmax 1/4, 1/2, 1/4; with epsilon .4: .6 p + .4 / 3
    policy = QPolicy(NGram(vocab_size=3, n=2).double(), temperature=0.5, epsilon=0.4)
    q_weights(policy)[1, 1] = 0.5 * math.log(2)
    hidden = torch.tensor([1])
    p = policy.action_logits(hidden[None]).softmax(-1)[0]
    assert p.tolist() == pytest.approx([0.15 + 0.4 / 3, 0.3 + 0.4 / 3, 0.15 + 0.4 / 3])
    greedy = QPolicy(NGram(vocab_size=3, n=2).double(), temperature=0.5)
    q_weights(greedy).copy_(q_weights(policy))
    assert greedy.action_logits(hidden[None]).softmax(-1)[0].tolist() == pytest.approx([0.25, 0.5, 0.25])


def test_the_policy_can_be_built_again_from_its_config() -> None:
    policy = build(QLearning(temperature=0.3, epsilon=0.2))
    twin = QPolicy(NGram(vocab_size=3, n=3).double(), **policy.config)
    twin.load_state_dict(policy.state_dict())
    assert (twin.temperature, twin.epsilon) == (0.3, 0.2)
    assert set(policy.parameter_groups()) == {"backbone", "q"}


def test_a_batch_without_actions_has_no_loss() -> None:
    algorithm = QLearning()
    policy = build(algorithm)
    loss = algorithm.loss(from_rows([[0, 1]], [[F, F]]), policy)
    (loss.sum / loss.denominator).backward()  # type: ignore[no-untyped-call]
    assert loss.sum == 0
    assert not policy.heads["q"].weight.grad.any()  # type: ignore[union-attr]


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


@pytest.mark.parametrize("double", [False, True])
def test_replay_reaches_the_optimal_values(double: bool) -> None:
    algorithm = QLearning(
        gamma=GAMMA, double=double, polyak=0.5, target_every=2, temperature=1.0, epsilon=0.5
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
    ("options", "message"),
    [
        ({"gamma": 2.0}, "algorithm.gamma: expected a number in [0, 1], got 2.0"),
        ({"polyak": 0.0}, "algorithm.polyak: expected a number in (0, 1], got 0.0"),
        ({"target_every": 0}, "algorithm.target_every: expected at least 1, got 0"),
        ({"temperature": 0.0}, "algorithm.temperature: expected a number above 0, got 0.0"),
        ({"epsilon": 1.0}, "algorithm.epsilon: expected a number in [0, 1), got 1.0"),
    ],
)
def test_wrong_values_are_refused_by_name(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError) as caught:
        QLearning(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message
